"""Packs a folder of images into WebDataset shards: ``python -m data.shards DIR -o OUT``.

A shard is a plain tar file of at most ``--images_per_shard`` images, ``OUT/shard-000000.tar`` and so on. Its members are the files
of ``DIR``, byte for byte, in the order of their paths, named by their number over all shards: ``000000000.jpg`` and so on. The same
folder gives the same shards, byte for byte. ``OUT`` appears once all shards are written; until then they are in ``OUT.partial``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.folders import SHARD, find_images, folder_given
from sga.images import ImageError, read_image

CHUNK = 256
"""Number of images that are decoded before they are written."""


def write_shards(paths: Sequence[Path], output: Path, images_per_shard: int) -> int:
    """Writes the readable images into shards; prints a line per shard and per image that cannot be read.

    Args:
        paths: Image files.
        output: Folder of the shards; empty, or not there yet.
        images_per_shard: Largest number of images per shard.

    Returns:
        Number of images that were left out.

    Raises:
        ValueError: ``output`` is not empty or is being written by another run, or ``images_per_shard`` is below 1.
        ImageError: No image can be read; nothing is left behind.
    """
    if images_per_shard < 1:
        raise ValueError(f"--images_per_shard must be at least 1, not {images_per_shard}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not an empty folder: give another, or empty it")
    partial = output.with_name(f"{output.name}.partial")
    if partial.exists():
        raise ValueError(f"{partial} is left by a run that was killed or is still writing: remove it if no run is writing")
    partial.mkdir(parents=True)
    try:
        written = _write(paths, partial, images_per_shard)
        if not written:
            raise ImageError("none of the images can be read")
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(paths) - written


def _write(paths: Sequence[Path], folder: Path, images_per_shard: int) -> int:
    """Number of images that were written, after writing the shards into a folder."""
    written = 0
    shard: tarfile.TarFile | None = None
    for looked_at, path in _readable(paths):
        if written % images_per_shard == 0:
            if shard is not None:
                shard.close()
                print(f"{Path(str(shard.name)).name}: {looked_at - 1} of {len(paths)} images", flush=True)
            name = folder / f"shard-{written // images_per_shard:06d}{SHARD}"
            shard = tarfile.open(name, "w:", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  (closed when it is full)
        assert shard is not None
        member = tarfile.TarInfo(f"{written:09d}{path.suffix.lower()}")
        member.size = path.stat().st_size
        with path.open("rb") as file:
            shard.addfile(member, file)
        written += 1
    if shard is not None:
        shard.close()
        print(f"{Path(str(shard.name)).name}: {len(paths)} of {len(paths)} images", flush=True)
    return written


def _readable(paths: Sequence[Path]) -> Iterator[tuple[int, Path]]:
    """Readable images, each with the number of images tried so far; prints a line per image that cannot be read."""
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(paths), CHUNK):
            chunk = paths[first : first + CHUNK]
            for i, error in enumerate(pool.map(_error, chunk)):
                if error:
                    print(f"left out: {error}", file=sys.stderr)
                else:
                    yield first + i + 1, chunk[i]


def _error(path: Path) -> str:
    """Reason why an image cannot be read; empty where it can."""
    try:
        read_image(path)
    except ImageError as error:
        return " ".join(str(error).split())
    return ""


def main(args: list[str] | None = None) -> int:
    """Exit code of the command: 1 where images were left out. ``args`` are by default those of the process."""
    from sga.cli import errors_in_one_line

    parser = argparse.ArgumentParser(prog="python -m data.shards", description=__doc__)
    parser.add_argument("input", metavar="DIR", help="folder of images, searched at any depth")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the shards; empty or not there")
    parser.add_argument("--images_per_shard", type=int, default=1000, help="most images per shard (default: 1000)")
    options = parser.parse_args(args)
    with errors_in_one_line():
        left_out = write_shards(find_images(folder_given(options.input)), options.output, options.images_per_shard)
    if left_out:
        print(f"{left_out} images left out, see above", file=sys.stderr)
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
