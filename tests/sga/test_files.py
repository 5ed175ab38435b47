from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sga import files
from sga.files import TEMPORARY, local_path, replacing, sweep, temporary_path, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_write_is_whole_or_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file.png"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket")
        os.chdir(here)
        for path, kind in {"fifo": "a FIFO", "folder": "a folder", "socket": "a socket", "/dev/null": "a device"}.items():
            with pytest.raises(OSError, match=f"is {kind}, not a regular file"):
                write_atomically(tmp_path / path, b"x")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with pytest.raises(OSError, match="is a FIFO"):
        write_atomically(tmp_path / "link", b"x")
    assert names(tmp_path) == ["fifo", "folder", "link", "socket"] and not Path("/dev/null").is_file()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(there: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere/file.bin", tmp_path / "link.bin"
    target.parent.mkdir()
    link.symlink_to("elsewhere/file.bin")
    if there:
        target.write_bytes(b"old")
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new" and names(target.parent) == ["file.bin"]


def test_a_link_planted_under_a_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_bytes(b"kept")
    planted = tmp_path / "planted"
    planted.symlink_to(tmp_path / "victim")
    monkeypatch.setattr(files, "temporary_path", lambda *_: planted)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "victim").read_bytes() == b"kept"


def test_temporary_files_of_ended_processes_are_swept_and_no_others(tmp_path: Path) -> None:
    own = temporary_path(tmp_path)
    dead = tmp_path / own.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    elsewhere = tmp_path / f"{TEMPORARY}00000000-1-x"  # of a machine that is not this one, so it may be alive
    old, foreign = tmp_path / f"{TEMPORARY}00000000-2-x", tmp_path / ".hidden"
    for path in (own, dead, elsewhere, old, foreign):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    sweep(tmp_path)
    assert set(names(tmp_path)) == {own.name, elsewhere.name, foreign.name}
    sweep(tmp_path / "missing")  # nothing to sweep is no error


def test_a_write_sweeps_its_folder(tmp_path: Path) -> None:
    own = temporary_path(tmp_path)
    (tmp_path / own.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-")).touch()
    write_atomically(tmp_path / "file", b"x")
    assert names(tmp_path) == ["file"]


def test_a_home_is_expanded_and_an_address_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/run") == Path("/home/me/run") and local_path("a~b") == Path("a~b")
    assert local_path("zoo:bmshj2018/mse/4") == Path("zoo:bmshj2018/mse/4")
    for address in ("s3://bucket/run", Path("s3://bucket/run"), "gs://x", "https://x/y"):
        with pytest.raises(ValueError, match="is an address, not a path"):
            local_path(address)
    with pytest.raises(ValueError, match="no such home folder"):
        local_path("~nobody-of-this-name/run")
