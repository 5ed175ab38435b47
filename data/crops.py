"""Random crops of photographs for training, each a pure function of its number in the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data.image_sets import ImageSet
from data.resampling import Crop, cut
from sga.images import ImageError

Indexes = np.ndarray[Any, np.dtype[np.int64]]

BLOCK = 10_000
"""Number of consecutive crops in which each set of images has its exact share; weights are rounded to multiples of 1 / BLOCK."""


class CropPlan:
    """Random choices for each crop of a run: crop i depends on ``seed`` and i alone, so that resuming does not change the crops.

    A set is drawn by its weight; within a set, every image is drawn once per pass over it, in a new order each time. A crop is
    flipped left to right with probability 1/2. JPEG files are reduced by a random factor before they are cropped, which removes
    the blocks and ringing of their coding (Balle et al. 2018, section 5).

    Args:
        sets: Sets of images, at least one.
        size: Side of a crop in pixels. Images that are smaller are enlarged.
        seed: Seed of the order of the images and of every crop.
        min_scale: Least factor by which JPEG files are reduced; the factor is drawn from [min_scale, 1], and 1 turns it off.

    Attributes:
        images: Images of all sets, one set after another.
        firsts: Index in ``images`` of the first image of each set.

    Raises:
        ValueError: The weight of a set is less than one in :data:`BLOCK` of all.
    """

    def __init__(self, sets: Sequence[ImageSet], size: int, seed: int, min_scale: float = 0.5) -> None:
        self.images = [image for images in sets for image in images.images]
        self.size, self.seed, self.min_scale = size, seed, min_scale
        self._counts = np.array([len(images.images) for images in sets])
        self.firsts: list[int] = (np.cumsum(self._counts) - self._counts).tolist()
        weights = np.cumsum([images.weight for images in sets])
        self._ends = np.round(weights / weights[-1] * BLOCK).astype(np.int64)
        self._shares = np.diff(self._ends, prepend=0)
        if self._shares.min() < 1:
            raise ValueError(f"a weight in data.root is less than one in {BLOCK} of all: leave that folder out, or give it more")
        self._block: tuple[int, Indexes, Indexes] | None = None
        self._orders: dict[int, tuple[int, Indexes]] = {}

    def image_of(self, number: int) -> int:
        """Index in :attr:`images` of the image of crop ``number``."""
        chosen, before = self._set_of(number)
        pass_, position = divmod(before, int(self._counts[chosen]))
        if chosen not in self._orders or self._orders[chosen][0] != pass_:
            order = np.random.default_rng((self.seed, 0, pass_, chosen)).permutation(self._counts[chosen])
            self._orders[chosen] = pass_, order
        return self.firsts[chosen] + int(self._orders[chosen][1][position])

    def crop_of(self, number: int, image: int, height: int, width: int) -> Crop:
        """Square of crop ``number`` in image ``image`` of ``height`` x ``width`` pixels."""
        rng = np.random.default_rng((self.seed, 1, number))
        least = max(self.min_scale if self.images[image].is_jpeg else 1.0, self.size / min(height, width))
        scale = rng.uniform(min(least, 1.0), 1.0) if least < 1 else least
        side = min(round(self.size / scale), height, width)
        top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
        return Crop(top, left, side, flipped=bool(rng.random() < 0.5))

    def stand_ins(self, image: int) -> Iterator[int]:
        """Indices of an image and of its replacements, all images of its set, in the order in which they are tried."""
        chosen = int(np.searchsorted(self.firsts, image, side="right")) - 1
        first, count = self.firsts[chosen], int(self._counts[chosen])
        return (first + (image - first + i) % count for i in range(count))

    def _set_of(self, number: int) -> tuple[int, int]:
        """Index of the set of a crop, and the number of earlier crops of that set."""
        if len(self._counts) == 1:
            return 0, number
        block, position = divmod(number, BLOCK)
        if self._block is None or self._block[0] != block:
            drawn = np.random.default_rng((self.seed, 2, block)).permutation(BLOCK)
            sets = np.searchsorted(self._ends, drawn, side="right")
            by_set = np.argsort(sets, kind="stable")
            before = np.empty_like(by_set)
            before[by_set] = np.arange(BLOCK) - (self._ends - self._shares)[sets[by_set]]
            self._block = block, sets, before + block * self._shares[sets]
        return int(self._block[1][position]), int(self._block[2][position])


class RandomCrops(Dataset[Tensor]):
    """Crops of a plan; an image file is decoded anew for each crop.

    An image that cannot be read is reported once and replaced by another of its set.

    Args:
        plan: Plan of the crops.

    Raises:
        ImageError: No image of a set can be read.
    """

    def __init__(self, plan: CropPlan) -> None:
        self.plan = plan
        self._unreadable: set[int] = set()
        for first in plan.firsts:
            self._read(first)

    def __len__(self) -> int:
        return len(self.plan.images)

    def __getitem__(self, number: int) -> Tensor:
        """Crop ``number`` (any non-negative integer), uint8 ``[3, size, size]``."""
        image, pixels = self._read(self.plan.image_of(number))
        height, width = pixels.shape[-2:]
        return cut(pixels, self.plan.crop_of(number, image, height, width), self.plan.size)

    def _read(self, image: int) -> tuple[int, Tensor]:
        for candidate in self.plan.stand_ins(image):
            if candidate not in self._unreadable:
                try:
                    return candidate, self.plan.images[candidate].read()
                except ImageError as error:
                    warnings.warn(f"{error}; another image stands in for it", stacklevel=2)
                    self._unreadable.add(candidate)
        raise nothing_readable(self.plan, image)


class ContiguousSampler(Sampler[int]):
    """Sampler of consecutive crop numbers over all epochs of a run; it starts at the first number that the run has not used.

    Args:
        epoch_length: Samples per epoch, over all ranks.
        used: Function that returns the number of samples used so far, over all ranks; called when an epoch begins or is resumed.
        rank: Number of this rank, from 0.
        world: Number of ranks.
    """

    def __init__(self, epoch_length: int, used: Callable[[], int], rank: int = 0, world: int = 1) -> None:
        self.epoch_length, self.used, self.rank, self.world = epoch_length, used, rank, world

    def __len__(self) -> int:
        return self.epoch_length // self.world

    def __iter__(self) -> Iterator[int]:
        # A whole epoch, also where one is resumed in the middle: the Trainer counts its steps and stops by itself.
        first = self.used()
        return iter(range(first + self.rank, first + self.epoch_length, self.world))


def nothing_readable(plan: CropPlan, image: int) -> ImageError:
    """The error for a set without a readable image; ``image`` is the index of one of them."""
    return ImageError(f"none of the training images can be read, {plan.images[image].path} among them")
