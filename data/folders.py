"""Image files of a folder, and a unique name for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"})
"""Endings of image files, in lower case."""


def find_images(root: Path) -> list[Path]:
    """Image files under a folder, at any depth, sorted; for a file, the file alone.

    Raises:
        FileNotFoundError: ``root`` does not exist, or no image is under it.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder of images: {root}")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not paths:
        raise FileNotFoundError(f"no images under {root} (looked for {' '.join(sorted(EXTENSIONS))})")
    return paths


def unique_names(paths: Iterable[Path]) -> list[str]:
    """A unique name per path, usable as a file name: its stem; where stems are equal, or dots alone, its folder and full name."""
    paths = list(paths)
    stems = Counter(path.stem for path in paths)
    names: dict[str, None] = {}
    for path in paths:
        name = path.stem if stems[path.stem] == 1 and path.stem.strip(".") else "_".join(path.parts[-2:]).replace(".", "_")
        while name in names:
            name += "_"
        names[name] = None
    return list(names)
