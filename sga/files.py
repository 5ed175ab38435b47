"""The folder of the project's own files, paths that a user gives, and writes that leave a whole file or none."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".sga-tmp-"
"""First characters of the name of a temporary file; its machine, its process and a random word follow."""

ABANDONED = 3600.0
"""Seconds without a change after which a temporary file is nobody's, whatever its machine and process."""

_NAME = re.compile(re.escape(TEMPORARY) + r"([0-9a-f]{8})-(\d+)-")


def home() -> Path:
    """The folder that holds ``configs``, ``checkpoints`` and the commands' modules: the checkout, or ``sga/_home`` of a wheel."""
    package = Path(__file__).parent
    installed = package / "_home"  # the build puts them there, see hatch_build.py
    return installed if installed.is_dir() else package.parent


def local_path(path: str | Path) -> Path:
    """A path that a user gave, with ``~`` expanded.

    Raises:
        ValueError: It is the address of another place, such as ``s3://bucket/run``, or of an unknown user's home.
    """
    text = str(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise ValueError(f"{text}: is an address, not a path; files are read from and written to mounted file systems alone")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: there is no such home folder") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file so that it is whole or not there, whatever stops the program or the machine; see :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context with the path of a new empty file beside ``path`` and of its ending, which is moved to ``path`` at the end.

    What stops the program in between leaves ``path`` as it was; the first write into the folder by a later process removes the
    temporary file.

    Raises:
        OSError: ``path`` is a device, a FIFO, a socket or a folder, or its folder cannot be written. A symbolic link is followed.
    """
    target = destination(path)
    _sweep_once(target.parent)
    temporary = temporary_path(target.parent, target.suffix)
    temporary.touch(exist_ok=False)  # exclusively: never through a link that somebody has laid there
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut leaves an empty file under the name
        temporary.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Has the new name of a file survive a power cut, where the system knows folders as files."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def destination(path: Path) -> Path:
    """The regular file, there or not yet, that a write to ``path`` replaces: that at the end of its symbolic links.

    Raises:
        OSError: Something else is there.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # also a link to a file that is not there yet
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        known = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise FileExistsError(None, f"is {known.get(stat.S_IFMT(mode), 'a device')}, not a regular file", str(path))
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def temporary_path(folder: Path, ending: str = "") -> Path:
    """A fresh path in a folder, whose name tells :func:`sweep` that it is this process's."""
    return folder / f"{TEMPORARY}{_machine()}-{os.getpid()}-{secrets.token_hex(8)}{ending if len(ending) < 20 else ''}"


def sweep(folder: Path) -> None:
    """Removes the temporary files that processes which have ended left in a folder; those of living ones stay."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                with suppress(OSError):
                    if is_abandoned(entry.name, entry.stat(follow_symlinks=False).st_mtime, time.time()):
                        Path(entry.path).unlink()


def is_abandoned(name: str, changed: float, now: float, after: float = ABANDONED) -> bool:
    """Whether the process that a temporary name tells of has ended.

    Args:
        name: Name of a temporary file.
        changed: Time of its last change, in seconds.
        now: Present time, in seconds of the same clock.
        after: Seconds without a change after which its process is taken for dead, on this machine or another.
    """
    if now - changed > after:
        return True
    parts = _NAME.match(name)
    if parts is None or parts[1] != _machine():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it is another user's
    return False


@functools.cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


@functools.cache
def _machine() -> str:
    """Eight digits for the machine and, in a container, its numbering of processes."""
    try:
        numbering = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbering = ""
    return f"{zlib.crc32(f'{platform.node()} {numbering}'.encode()):08x}"
