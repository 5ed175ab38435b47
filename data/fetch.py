"""Downloads a test set: ``python -m data.fetch kodak``, ``tecnick`` or ``clic``; :mod:`data.named_sets` says what they are.

The images go to the folder where the other commands find them by name (``--data.root kodak``): ``$SGA_DATA/NAME``, by default
``~/.cache/sga-lightning/NAME``; or to the folder of ``-o``, to be given to the other commands by its path. Files are written whole
or not at all, and when the command is run again, an interrupted download continues where it stopped.

``SHA256SUMS`` beside the images (``sha256sum -c`` reads it) is written last. Kodak's images and CLIC's archive are checked against
known checksums. No checksum of Tecnick's archive is known, so the first download is trusted, apart from the archive's own CRC-32 of
each image. Every later run of this command checks the images of an archive against the checksums that the first run recorded, and
Kodak's against the known ones again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from rich.progress import Progress

from data.folders import CHECKSUMS
from data.named_sets import SETS, NamedSet, check_surplus, folder_of, read_checksums
from sga.cli import errors_in_one_line
from sga.download import download, download_progress
from sga.files import sha256_of, write_atomically

LARGEST_IMAGE = 2**27
"""Largest size in bytes of an unpacked image; an archive with a larger one is refused."""


def fetch(named: NamedSet, folder: Path, progress: Progress) -> None:
    """Downloads the missing images of a set into a folder and checks those that are there.

    Raises:
        ValueError: A checksum or the number of images is wrong, or the folder holds an image that is not of the set.
        OSError: The download failed or stopped; another call continues it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checksums = _unpacked(named, folder, progress) if named.folder else _downloaded(named, folder, progress)
    lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(checksums.items())]
    write_atomically(folder / CHECKSUMS, "".join(lines).encode())
    check_surplus(named, folder)


def _downloaded(named: NamedSet, folder: Path, progress: Progress) -> dict[str, str]:
    """SHA-256 of every image by name, after downloading the missing ones one by one."""
    checksums = {}
    for url, sha256 in named.files.items():
        path = folder / PurePosixPath(url).name
        assert sha256 is not None
        if path.exists():
            _check(path, sha256)
        else:
            download(url, path, sha256, progress)
        checksums[path.name] = sha256
    return checksums


def _unpacked(named: NamedSet, folder: Path, progress: Progress) -> dict[str, str]:
    """SHA-256 of every image by name, after downloading the archive and unpacking the missing ones.

    Where none is missing, the images are checked against the recorded checksums instead. The archive is deleted once its images
    are unpacked, and also if it is damaged.
    """
    recorded = read_checksums(folder / CHECKSUMS)
    if len(recorded) == named.images and all((folder / name).exists() for name in recorded):
        for name, checksum in recorded.items():
            _check(folder / name, checksum)
        return recorded
    ((url, sha256),) = named.files.items()
    archive = folder / f".{named.name}.zip"
    if not archive.exists():
        download(url, archive, sha256, progress)
    try:
        checksums = unpack(named, archive, folder, recorded)
    except (zipfile.BadZipFile, zlib.error) as error:
        archive.unlink()
        raise ValueError(f"{url} gave no valid zip file ({error}): run the command again, or download it in a browser") from error
    archive.unlink()
    return checksums


def unpack(named: NamedSet, archive: Path, folder: Path, recorded: dict[str, str]) -> dict[str, str]:
    """SHA-256 of every image by name, after writing the missing images of an archive into ``folder``, by their bare names.

    Args:
        named: Set of the archive; its images are the PNG files in any folder with the name ``named.folder``.
        archive: Zip file.
        folder: Folder of the images; those that are there are checked and left alone.
        recorded: SHA-256 of the images by name, from an earlier download; empty if there was none.

    Raises:
        ValueError: The number of images is wrong, one is larger than :data:`LARGEST_IMAGE`, or one differs from its checksum.
        zipfile.BadZipFile, zlib.error: The archive is damaged.
    """
    checksums = {}
    with zipfile.ZipFile(archive) as file:
        members = {}
        for member in file.infolist():
            path = PurePosixPath(member.filename)
            if path.parent.name == named.folder and path.suffix.lower() == ".png" and not path.name.startswith("."):
                members[path.name] = member
        if len(members) != named.images:
            raise ValueError(f"{archive} holds {len(members)} images, and {named.name} has {named.images}: delete it and try again")
        for name, member in sorted(members.items()):
            if member.file_size > LARGEST_IMAGE:
                raise ValueError(f"{archive}: {name} has {member.file_size} bytes, more than an image of {named.name} can have")
            content = file.read(member)
            checksums[name] = hashlib.sha256(content).hexdigest()
            if recorded.get(name, checksums[name]) != checksums[name]:
                raise ValueError(f"{name} is not what {folder / CHECKSUMS} recorded: the set at its address has changed")
            if (folder / name).exists():
                _check(folder / name, checksums[name])
            else:
                write_atomically(folder / name, content)
    return checksums


def _check(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        raise ValueError(f"{path} is not the set's image of this name (wrong SHA-256): delete it, or choose another -o")


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SETS), help="name of the set")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the images, in place of the set's own")
    options = parser.parse_args(args)
    named = SETS[options.name]
    folder = options.output or folder_of(named.name)
    with errors_in_one_line(), download_progress() as progress:
        fetch(named, folder, progress)
    print(f"{named.images} images, checked: {folder}    use them with --data.root {options.output or named.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
