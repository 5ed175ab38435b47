from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from rich.progress import Progress
from torch import Tensor

import refine
from data import fetch
from data.named_sets import SETS, NamedSet, images_of
from data.training_data import TrainingDataModule
from sga.download import download
from sga.images import write_image

QUIET = Progress(disable=True)
IMAGES = {"a.png": b"first" * 50_000, "b.png": b"second" * 50_000}


class Server(ThreadingHTTPServer):
    """Server of :attr:`files` that breaks connections off after :attr:`limit` bytes, and sends ranges if :attr:`ranges` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.limit: int | None = None
        self.sent: list[tuple[str, int]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        start = 0
        if "Range" in self.headers and self.server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:][: self.server.limit]
        self.server.sent.append((name, len(body)))  # before the client can go on
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_files(server: Server) -> NamedSet:
    server.files = dict(IMAGES)
    return NamedSet("small", 2, {server.url(name): sha256(content) for name, content in IMAGES.items()})


def of_archive(server: Server, members: dict[str, bytes], checksum: bool = False, images: int = 2) -> NamedSet:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    server.files = {"set.zip": stream.getvalue()}
    return NamedSet("small", images, {server.url("set.zip"): sha256(stream.getvalue()) if checksum else None}, "chosen")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "SHA256SUMS"}


def test_files_arrive_whole_and_a_second_run_downloads_nothing(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    for _ in range(2):
        fetch.fetch(named, tmp_path / "set", QUIET)
        assert contents(tmp_path / "set") == IMAGES
        assert len(server.sent) == 2
    assert (tmp_path / "set/SHA256SUMS").read_text() == "".join(f"{sha256(content)}  {name}\n" for name, content in IMAGES.items())


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    server.limit = 100_000
    with pytest.raises(OSError, match=r"a\.png: the connection ended after 100000 of 250000 bytes; .* run the command again"):
        fetch.fetch(named, tmp_path, QUIET)
    assert not (tmp_path / "a.png").exists()
    server.limit = None
    fetch.fetch(named, tmp_path, QUIET)
    assert contents(tmp_path) == IMAGES
    assert server.sent == [("a.png", 100_000), ("a.png", 150_000), ("b.png", 300_000)]


def test_a_server_that_sends_no_parts_is_asked_for_the_whole(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    (tmp_path / ".a.png.part").write_bytes(b"something else")
    server.ranges = False
    fetch.fetch(named, tmp_path, QUIET)
    assert contents(tmp_path) == IMAGES


def test_a_part_that_is_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    (tmp_path / ".a.png.part").write_bytes(bytes(400_000))
    fetch.fetch(named, tmp_path, QUIET)
    assert contents(tmp_path) == IMAGES


def test_a_wrong_checksum_leaves_no_file(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    server.files["b.png"] = b"forged" * 50_000
    with pytest.raises(ValueError, match=r"b\.png has the SHA-256 .* and not"):
        fetch.fetch(named, tmp_path, QUIET)
    assert contents(tmp_path) == {"a.png": IMAGES["a.png"]}
    assert not (tmp_path / "SHA256SUMS").exists()


def test_the_first_digits_of_a_checksum_are_checked_too(server: Server, tmp_path: Path) -> None:
    server.files = dict(IMAGES)
    digits = sha256(IMAGES["a.png"])[:8]
    download(server.url("a.png"), tmp_path / "a.png", digits, QUIET)
    with pytest.raises(ValueError, match=rf"b\.png has the SHA-256 .* and not {digits}"):
        download(server.url("b.png"), tmp_path / "b.png", digits, QUIET)
    assert contents(tmp_path) == {"a.png": IMAGES["a.png"]}


def test_a_planted_link_is_not_written_through(server: Server, tmp_path: Path) -> None:
    server.files = dict(IMAGES)
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / ".a.png.part").symlink_to(tmp_path / "mine")
    download(server.url("a.png"), tmp_path / "a.png", sha256(IMAGES["a.png"]), QUIET)
    assert contents(tmp_path) == {"a.png": IMAGES["a.png"], "mine": b"mine"}


def test_a_missing_file_is_one_line_and_code_2(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = of_files(server)
    del server.files["b.png"]
    monkeypatch.setitem(SETS, "small", named)
    with pytest.raises(SystemExit) as stop:
        fetch.main(["small", "-o", str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip() == f"error: cannot download {server.url('b.png')}: HTTP Error 404: Not Found"


@pytest.mark.parametrize("part", [b"", bytes(400_000)], ids=["404", "416"])
def test_a_refused_connection_is_closed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: bytes) -> None:
    refusals = []

    def recorded(*given: object, **named: object) -> object:
        try:
            return urlopen(*given, **named)
        except HTTPError as error:
            refusals.append(error)
            raise

    monkeypatch.setattr("sga.download.urlopen", recorded)
    if part:
        server.files = dict(IMAGES)
        (tmp_path / ".a.png.part").write_bytes(part)
        download(server.url("a.png"), tmp_path / "a.png", None, QUIET)
    else:
        with pytest.raises(OSError, match="404: Not Found"):
            download(server.url("a.png"), tmp_path / "a.png", None, QUIET)
    assert [(error.code, error.closed) for error in refusals] == [(416 if part else 404, True)]


def test_a_foreign_file_is_neither_taken_nor_overwritten(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"a\.png is not the set's image"):
        fetch.fetch(named, tmp_path, QUIET)
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_known_checksums_are_not_replaced_by_recorded_ones(server: Server, tmp_path: Path) -> None:
    named = of_files(server)
    fetch.fetch(named, tmp_path, QUIET)
    (tmp_path / "a.png").write_bytes(b"mine")
    recorded = (tmp_path / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text(recorded.replace(sha256(IMAGES["a.png"]), sha256(b"mine")))
    with pytest.raises(ValueError, match=r"a\.png is not the set's image"):
        fetch.fetch(named, tmp_path, QUIET)


@pytest.mark.parametrize("archive", [True, False])
def test_images_of_others_are_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bool) -> None:
    named = of_archive(server, {f"chosen/{name}": content for name, content in IMAGES.items()}) if archive else of_files(server)
    monkeypatch.setenv("SGA_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)  # a folder here would go before the set
    monkeypatch.setitem(SETS, "small", named)
    folder = tmp_path / "small"
    fetch.fetch(named, folder, QUIET)
    (folder / "holiday").mkdir()
    (folder / "holiday/a.png").write_bytes(b"mine")
    (folder / "notes.txt").write_text("no image")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"holds images that are not of small: move holiday/a\.png away"):
            fetch.fetch(named, folder, QUIET)
        with pytest.raises(ValueError, match=r"holds images that are not of small: move holiday/a\.png away"):
            images_of("small")
    (folder / "holiday/a.png").unlink()
    fetch.fetch(named, folder, QUIET)
    assert [path.name for path in images_of("small")] == ["a.png", "b.png"]


@pytest.mark.parametrize("checksum", [True, False])
def test_of_an_archive_only_the_images_of_the_set_are_unpacked(server: Server, tmp_path: Path, checksum: bool) -> None:
    members = {
        "x/chosen/a.png": IMAGES["a.png"],
        "../../chosen/b.png": IMAGES["b.png"],  # whatever its path, it ends in the folder
        "x/other/c.png": b"of another set",
        "x/chosen/notes.txt": b"no image",
        "__MACOSX/x/chosen/._a.png": b"no image",
    }
    fetch.fetch(of_archive(server, members, checksum), tmp_path / "deep/set", QUIET)
    assert contents(tmp_path / "deep/set") == IMAGES
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_what_the_first_download_brought_is_checked_ever_after(server: Server, tmp_path: Path) -> None:
    fetch.fetch(of_archive(server, {f"chosen/{name}": content for name, content in IMAGES.items()}), tmp_path, QUIET)
    changed = of_archive(server, {"chosen/a.png": IMAGES["a.png"], "chosen/b.png": b"another"})
    (tmp_path / "b.png").unlink()
    with pytest.raises(ValueError, match=r"b\.png is not what .*SHA256SUMS recorded"):
        fetch.fetch(changed, tmp_path, QUIET)
    (tmp_path / "b.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"b\.png is not the set's image"):
        fetch.fetch(changed, tmp_path, QUIET)


def test_an_archive_that_is_none_or_lacks_images_is_refused(server: Server, tmp_path: Path) -> None:
    named = of_archive(server, {"chosen/a.png": IMAGES["a.png"]})
    with pytest.raises(ValueError, match="holds 1 images, and small has 2"):
        fetch.fetch(named, tmp_path / "lacking", QUIET)
    server.files["set.zip"] = b"<html>choose a mirror</html>"
    with pytest.raises(ValueError, match="no valid zip file"):
        fetch.fetch(named, tmp_path / "page", QUIET)
    assert not list((tmp_path / "page").iterdir())


def test_a_damaged_archive_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in IMAGES.items():
            archive.writestr(f"chosen/{name}", content)
    whole = stream.getvalue()
    first = whole.index(b"chosen/") + len("chosen/a.png")  # of the compressed bytes
    server.files = {"set.zip": whole[:first] + b"\xff" + whole[first + 1 :]}  # no deflate block begins so
    named = NamedSet("small", len(IMAGES), {server.url("set.zip"): None}, "chosen")
    with pytest.raises(ValueError, match="no valid zip file"):
        fetch.fetch(named, tmp_path / "set", QUIET)
    server.files = {"set.zip": whole}
    fetch.fetch(named, tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == IMAGES


def test_sets_are_found_by_name(
    server: Server, tmp_path: Path, photograph: Tensor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SGA_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = str(Path(__file__).parents[2] / "configs/refine/ssl.yaml")
    with pytest.raises(SystemExit) as stop:
        refine.main(["--config", config, "--data.root=kodak", "--output=run"])
    assert stop.value.code == 2 and "python -m data.fetch kodak" in capsys.readouterr().err.splitlines()[-1]

    folder = tmp_path / "sets"
    monkeypatch.setenv("SGA_DATA", str(folder))
    write_image(photograph[:, :64, :64], tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    server.files = {"a.png": content, "b.png": content}
    monkeypatch.setitem(SETS, "small", NamedSet("small", 2, {server.url(name): sha256(content) for name in server.files}))
    assert fetch.main(["small"]) == 0
    assert "--data.root small" in capsys.readouterr().out
    run = ["--config", config, "--data.root=small", "--output=run", "--model.steps=0", "--trainer.accelerator=cpu"]
    assert refine.main(run) == 0
    assert sorted(path.name for path in (tmp_path / "run/images").iterdir()) == ["a.json", "b.json"]
    module = TrainingDataModule(test=Path("small"))
    module.setup("test")
    assert module.test_names == ["a", "b"]
    (folder / "small/b.png").unlink()
    with pytest.raises(ValueError, match="holds 1 images, and small has 2"):
        images_of("small")


def test_a_folder_here_goes_before_the_set_of_its_name(tmp_path: Path, photograph: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kodak").mkdir()
    write_image(photograph[:, :64, :64], tmp_path / "kodak/mine.png")
    assert images_of("kodak") == [Path("kodak/mine.png")]


def test_the_sets_are_complete() -> None:
    kodak = SETS["kodak"].files
    assert len(kodak) == len(set(kodak.values())) == SETS["kodak"].images == 24
    for named in SETS.values():
        assert all(url.startswith("https://") for url in named.files)
        assert all(checksum is None or len(checksum) == 64 for checksum in named.files.values())
        assert named.folder == "" or len(named.files) == 1
