"""Image files of a folder, by one rule for all commands, and a unique name for each."""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from sga.names import escaped

_IMAGES = """
.apng .avif .bmp .dib .gif .heic .heif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .jxl .pbm .pfm .pgm .png .pnm .ppm .qoi
.tga .tif .tiff .webp
"""
EXTENSIONS = frozenset(_IMAGES.split())
"""Endings of image files, in lower case. They are the same everywhere: a file that this machine cannot read is its own error."""
SHARD = ".tar"
"""Ending of a WebDataset shard."""
LONGEST_NAME = 240
"""Most bytes of a name, so that with an ending it is a file name of every file system."""
CHECKSUMS = "SHA256SUMS"
"""File beside the images of a downloaded set."""

_reported: set[str] = set()


@dataclass
class Found:
    """What a search found.

    Attributes:
        images: Image files, sorted.
        shards: WebDataset shards, sorted.
        passed: Numbers of files and folders that were passed over, by their kind.
    """

    images: list[Path] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)


def search(root: Path) -> Found:
    """Images and shards under a folder, at any depth.

    Hidden files and folders (:func:`is_hidden`) are passed over. Links to folders are followed; a folder that is reached several
    ways is searched once.

    Raises:
        FileNotFoundError: ``root`` does not exist.
        OSError: A folder may not be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder of images: {escaped(root)}")
    found = Found()
    seen: set[tuple[int, int]] = set()
    folders = [root]
    for start in folders:  # grows: links wait until all folders of their own are searched
        for folder, subfolders, files in os.walk(start, onerror=_raise):
            here = Path(folder)
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            found.passed["hidden"] += sum(map(is_hidden, subfolders))
            subfolders[:] = [name for name in sorted(subfolders) if not is_hidden(name)]
            folders += [here / name for name in subfolders if (here / name).is_symlink()]
            for name in files:
                _add(found, here / name)
    found.images.sort()
    found.shards.sort()
    return found


def _add(found: Found, path: Path) -> None:
    ending = path.suffix.lower()
    if is_hidden(path.name):
        found.passed["hidden"] += 1
    elif path.name == CHECKSUMS:  # the project's own
        return
    elif not path.is_file():
        found.passed["broken link" if path.is_symlink() else "no file"] += 1
    elif ending in EXTENSIONS:
        found.images.append(path)
    elif ending == SHARD:
        found.shards.append(path)
    else:
        found.passed[kind_of(path)] += 1


def is_hidden(name: str) -> bool:
    """Whether a file or folder is for programs, not for people: ``.name``, ``@eaDir``, ``__MACOSX``."""
    return name.startswith((".", "@")) or name == "__MACOSX"


def kind_of(path: PurePath) -> str:
    """Kind of a file that is no image, for :func:`report_passed_over`: its ending."""
    return escaped(path.suffix.lower()) or "without ending"


def report_passed_over(root: Path, passed: Counter[str]) -> None:
    """Prints one line on standard error that says how many files of which kind were passed over, once per process and line.

    Only the first rank prints.
    """
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(passed.items(), key=lambda item: (-item[1], item[0])) if count)
    line = f"passed over in {escaped(root)}: {kinds}"
    if not kinds or line in _reported:
        return
    _reported.add(line)
    from pytorch_lightning.utilities import rank_zero_only  # slow to import

    if not getattr(rank_zero_only, "rank", 0):
        print(line, file=sys.stderr)


def folder_given(given: str | Path) -> Path:
    """Path of a folder or file as a user gives it; ``~`` is the home folder.

    Raises:
        ValueError: It is empty.
    """
    if not str(given).strip():
        raise ValueError('a folder of images is given as "": name it, or . for the present one')
    return Path(given).expanduser()


def find_images(root: Path) -> list[Path]:
    """Image files under a folder (:func:`search`), sorted; for a file, the file alone. What is passed over is reported.

    Raises:
        FileNotFoundError: ``root`` does not exist, or no image is under it.
        OSError: A folder may not be read.
    """
    if root.is_file():
        return [root]
    found = search(root)
    found.passed[SHARD] += len(found.shards)
    report_passed_over(root, found.passed)
    if not found.images:
        raise no_images(f"under {escaped(root)}")
    return found.images


def no_images(where: str) -> FileNotFoundError:
    """The error where no image is found."""
    return FileNotFoundError(f"no images {where} (looked for {' '.join(sorted(EXTENSIONS))})")


def unique_names(paths: Iterable[Path]) -> list[str]:
    """A unique name per path, usable as a file name: its stem; where stems are equal, its folder and full name.

    Bytes outside UTF-8 and control characters are escaped, and names of over :data:`LONGEST_NAME` bytes are shortened.
    """
    paths = list(paths)
    stems = Counter(path.stem for path in paths)
    names: dict[str, None] = {}
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else "_".join(path.parts[-2:]).replace(".", "_").replace("/", "")
        name = _short(escaped(re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), name)))
        while name in names:
            name += "_"
        names[name] = None
    return list(names)


def _short(name: str) -> str:
    content = name.encode()
    if len(content) <= LONGEST_NAME:
        return name
    return f"{content[: LONGEST_NAME - 9].decode(errors='ignore')}_{zlib.crc32(content):08x}"


def _raise(error: OSError) -> None:
    raise error
