"""Sets of training images: folders and shards, and their weights."""

from __future__ import annotations

import math
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data.folders import EXTENSIONS, find_images
from sga.images import ImageError, image_size, read_image

SHARD = ".tar"
JPEG = (".jpg", ".jpeg")

Root = dict[str, float] | list[Path] | Path
"""Training images: a folder or shard, several, or several with their weights."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Place of an image's bytes: a file, or a member of a shard.

    Attributes:
        path: Path of the file or the shard.
        member: Name in the shard; empty for a file.
        offset: Position of the member's first byte in the shard.
        length: Length of the member in bytes.
    """

    path: Path
    member: str = ""
    offset: int = 0
    length: int = 0

    @property
    def is_jpeg(self) -> bool:
        return (self.member or self.path.name).lower().endswith(JPEG)

    def read(self) -> Tensor:
        """The picture, uint8 ``[3, H, W]``.

        Raises:
            ImageError: The file is missing, damaged, or not an image.
        """
        return read_image(self.path / self.member, self._content())

    def size(self) -> tuple[int, int]:
        """Height and width of the picture that :meth:`read` returns, from the header alone.

        Raises:
            ImageError: The file is missing, damaged, or not an image.
        """
        return image_size(self.path / self.member, self._content())

    def _content(self) -> bytes | None:
        if not self.member:
            return None
        try:
            # Opened anew for each image: workers and threads must not share a file position.
            with self.path.open("rb") as shard:
                shard.seek(self.offset)
                return shard.read(self.length)
        except OSError as error:
            raise ImageError(f"cannot read {self.path}: {error}") from error


@dataclass(frozen=True)
class ImageSet:
    """Images that are drawn equally often.

    Attributes:
        images: Images in an order that depends on their names alone.
        weight: Relative frequency of crops from this set, above 0.
    """

    images: list[ImageSource]
    weight: float = 1.0


def image_sets(root: Root) -> list[ImageSet]:
    """Sets of images of ``--data.root``: one per weighted folder, or a single set where there are no weights.

    Raises:
        FileNotFoundError: A folder does not exist or holds no image.
        ValueError: No folder is named, or a weight is not above 0.
        ImageError: A shard cannot be read.
    """
    if not root and not isinstance(root, Path):
        raise ValueError("data.root names no folder")
    if not isinstance(root, dict):
        roots = root if isinstance(root, list) else [root]
        return [ImageSet([image for path in roots for image in list_images(Path(path))])]
    for path, weight in root.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"the weight of {path} in data.root must be a number above 0, not {weight}")
    return [ImageSet(list_images(Path(path)), weight) for path, weight in root.items()]


def list_images(root: Path) -> list[ImageSource]:
    """Images of a folder at any depth, of a shard, or of a folder of shards.

    Raises:
        FileNotFoundError: ``root`` does not exist, or no image is in it.
        ValueError: A folder holds shards and image files.
        ImageError: A shard cannot be read.
    """
    shards = [root] if root.suffix == SHARD and root.is_file() else sorted(root.rglob(f"*{SHARD}"))
    if not shards:
        return [ImageSource(path) for path in find_images(root)]
    if root.is_dir() and any(path.suffix.lower() in EXTENSIONS for path in root.rglob("*")):
        raise ValueError(f"{root} holds both shards (such as {shards[0].name}) and image files: name them apart in --data.root")
    images = index_shards(shards)
    if not images:
        raise FileNotFoundError(f"no images in the shards of {root} (looked for {' '.join(sorted(EXTENSIONS))})")
    return images


def index_shards(shards: Sequence[Path]) -> list[ImageSource]:
    """Images of WebDataset shards, in their order; only the headers of the members are read.

    Raises:
        ImageError: A shard is compressed, damaged, truncated, or not a tar file.
    """
    with ThreadPoolExecutor(8) as pool:
        return [image for images in pool.map(_index_shard, shards) for image in images]


def _index_shard(shard: Path) -> list[ImageSource]:
    try:
        with tarfile.open(shard, "r:") as file:
            return [
                ImageSource(shard, member.name, member.offset_data, member.size)
                for member in file
                if member.isfile() and Path(member.name).suffix.lower() in EXTENSIONS
            ]
    except (OSError, tarfile.TarError) as error:
        raise ImageError(f"cannot read {shard} as an uncompressed tar file ({error}): make or copy it anew") from error
