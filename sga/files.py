"""The folder of the project's own files, and atomic writes."""

from __future__ import annotations

import os
import platform
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home() -> Path:
    """The folder that holds ``configs``, ``checkpoints`` and the commands' modules: the checkout, or ``sga/_home`` of a wheel."""
    package = Path(__file__).parent
    installed = package / "_home"  # the build puts them there, see hatch_build.py
    return installed if installed.is_dir() else package.parent


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is whole or not there, whatever stops the program or the machine."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a power cut leaves an empty file under the name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context with a temporary path beside ``path``, unique to this process and machine, that is renamed to ``path`` at the end."""
    short = f"{zlib.crc32(path.name.encode()):08x}"  # a name may be as long as the file system allows
    temporary = path.with_name(f".{short}.{platform.node()}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
