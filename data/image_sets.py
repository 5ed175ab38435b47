"""Sets of training images: folders and shards, and their weights."""

from __future__ import annotations

import math
import posixpath
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from data.folders import EXTENSIONS, SHARD, folder_given, is_hidden, kind_of, no_images, report_passed_over, search
from sga.images import ImageError, image_size, read_image
from sga.names import escaped

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
MOST_LINKS = 40
"""Links in a shard that are followed one after another, as many as Linux follows."""

# Strings, since a Path would make the present folder of an empty one.
Root = dict[str, float] | list[str | Path] | str | Path
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
            raise ImageError(f"cannot read {escaped(self.path)}: {error}") from error


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
    if not root and not isinstance(root, (str, Path)):
        raise ValueError("data.root names no folder")
    if not isinstance(root, dict):
        roots = root if isinstance(root, list) else [root]
        return [ImageSet([image for path in roots for image in list_images(folder_given(path))])]
    for path, weight in root.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"the weight of {path} in data.root must be a number above 0, not {weight}")
    return [ImageSet(list_images(folder_given(path)), weight) for path, weight in root.items()]


def list_images(root: Path) -> list[ImageSource]:
    """Images of a folder at any depth, of a shard, or of a folder of shards.

    Raises:
        FileNotFoundError: ``root`` does not exist, or no image is in it.
        ValueError: A folder holds shards and image files.
        ImageError: A shard cannot be read.
    """
    if root.is_file():
        if root.suffix.lower() != SHARD:
            return [ImageSource(root)]
        images, passed = index_shards([root])
    else:
        found = search(root)
        if found.images and found.shards:
            first = escaped(found.shards[0].name)
            raise ValueError(f"{escaped(root)} holds both shards (such as {first}) and image files: name them apart in --data.root")
        images, passed = index_shards(found.shards)
        images += [ImageSource(path) for path in found.images]
        passed.update(found.passed)
    report_passed_over(root, passed)
    if not images:
        raise no_images(f"in {escaped(root)}")
    return images


def index_shards(shards: Sequence[Path]) -> tuple[list[ImageSource], Counter[str]]:
    """Images of WebDataset shards, in their order, and the numbers of other members by their kind; only headers are read.

    The rule is that of :func:`data.folders.search`; links within a shard stand for the members that they name.

    Raises:
        ImageError: A shard is compressed, damaged, truncated, or not a tar file.
    """
    with ThreadPoolExecutor(8) as pool:
        indexed = list(pool.map(_index_shard, shards))
    return [image for images, _ in indexed for image in images], sum((passed for _, passed in indexed), Counter())


def _index_shard(shard: Path) -> tuple[list[ImageSource], Counter[str]]:
    try:
        with tarfile.open(shard, "r:") as file:
            members = [member for member in file if not member.isdir()]
    except (OSError, tarfile.TarError) as error:
        raise ImageError(f"cannot read {escaped(shard)} as an uncompressed tar file ({error}): make or copy it anew") from error
    by_name = {posixpath.normpath(member.name): member for member in members}
    images: list[ImageSource] = []
    passed: Counter[str] = Counter()
    for member in members:
        path, target = PurePosixPath(member.name), _target(member, by_name)
        if any(is_hidden(part) for part in path.parts if part != ".."):
            passed["hidden"] += 1
        elif target is None:
            passed["broken link"] += 1
        elif path.suffix.lower() in EXTENSIONS and target.isfile():
            images.append(ImageSource(shard, member.name, target.offset_data, target.size))
        else:
            passed[kind_of(path)] += 1
    return images, passed


def _target(member: tarfile.TarInfo, by_name: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The member that holds a member's bytes: itself, or where its links lead; ``None`` where they lead nowhere."""
    target: tarfile.TarInfo | None = member
    for _ in range(MOST_LINKS):
        if target is None or not (target.issym() or target.islnk()):
            return target
        folder = posixpath.dirname(target.name) if target.issym() else ""  # a hard link names the member itself
        target = by_name.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
    return None
