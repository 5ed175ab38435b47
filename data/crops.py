"""Random crops of photographs for training, each a pure function of its number in the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data.images import ImageError, read_image, to_float

JPEG = (".jpg", ".jpeg")


class RandomCrops(Dataset[Tensor]):
    """Crops of a list of photographs; crop i depends on ``seed`` and i alone, so that a resumed run sees what it would have.

    A crop is flipped left to right half the time. Crops of JPEG files are reduced by a random factor first, which removes the
    blocks and ringing of their coding (Balle et al. 2018, section 5).

    Args:
        paths: Image files, decoded once and kept in memory when ``in_memory``. Those smaller than a crop are enlarged.
        size: Side of a crop in pixels.
        seed: Of the order of images and of every crop.
        min_scale: JPEG files are reduced by a factor in [min_scale, 1]; 1 turns it off.
        in_memory: Keep the decoded pixels (3 bytes a pixel) instead of decoding a file for each crop.

    Raises:
        ImageError: No file can be read.
    """

    def __init__(self, paths: Sequence[Path], size: int, seed: int, min_scale: float = 0.5, in_memory: bool = True) -> None:
        self.paths = list(paths)
        self.size = size
        self.seed = seed
        self.min_scale = min_scale
        self._pixels: dict[Path, Tensor] = {}
        self._order: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] | None = None
        if in_memory:
            with ThreadPoolExecutor(8) as pool:
                images = list(pool.map(_read_or_none, self.paths))
            self._pixels = {path: image for path, image in zip(self.paths, images, strict=True) if image is not None}
            self.paths = list(self._pixels)
            if not self.paths:
                raise ImageError("none of the training images can be read")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        """Crop ``number`` (any non-negative integer) as fp32 ``[3, size, size]`` in [0, 1]."""
        rng = np.random.default_rng((self.seed, 1, number))
        path = self.paths[self._image_of(number)]
        image = self._pixels.get(path)
        if image is None:
            image = read_image(path)
        height, width = image.shape[-2:]
        least = max(self.min_scale if path.suffix.lower() in JPEG else 1.0, self.size / min(height, width))
        scale = rng.uniform(min(least, 1.0), 1.0) if least < 1 else least
        side = min(round(self.size / scale), height, width)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = image[:, top : top + side, left : left + side]
        if side != self.size:
            picture = Image.fromarray(crop.permute(1, 2, 0).numpy())
            resized = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=None)
            crop = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        if rng.random() < 0.5:
            crop = crop.flip(-1)
        return to_float(crop)

    def _image_of(self, number: int) -> int:
        """Every image once in each pass over the set, in an order that the pass decides."""
        pass_, position = divmod(number, len(self.paths))
        if self._order is None or self._order[0] != pass_:
            self._order = pass_, np.random.default_rng((self.seed, 0, pass_)).permutation(len(self.paths))
        return int(self._order[1][position])


class ContiguousSampler(Sampler[int]):
    """Numbers the crops of a run one after another over all epochs, from any point on.

    Args:
        epoch_length: Samples an epoch, of all ranks.
        start: Samples that the run has already used.
        rank: Which share of the samples.
        world: Number of shares.
    """

    def __init__(self, epoch_length: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.epoch_length, self.rank, self.world = epoch_length, rank, world
        self._epoch, self._offset = divmod(start, epoch_length)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of an epoch; a later epoch than the first starts at its own beginning."""
        if epoch != self._epoch:
            self._epoch, self._offset = epoch, 0

    def __len__(self) -> int:
        return self.epoch_length // self.world

    def __iter__(self) -> Iterator[int]:
        first = self._epoch * self.epoch_length
        return iter(range(first + self._offset + self.rank, first + self.epoch_length, self.world))


def _read_or_none(path: Path) -> Tensor | None:
    try:
        return read_image(path)
    except ImageError:
        return None
