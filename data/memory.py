"""Training images that are decoded once and kept in the memory of the training device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.crops import CropPlan, nothing_readable
from data.image_sets import ImageSource
from data.resampling import cut, cut_all
from sga.images import ImageError, to_float

USABLE = 0.8
"""Largest share of the free memory for images; training needs the rest."""


class CropsInMemory(Dataset[int]):
    """Crops of a plan, from photographs that are all in memory (3 bytes per pixel).

    An item is only the number of a crop; :meth:`batch` makes the pixels, on ``device``. Images that cannot be read are reported
    once, and each is replaced by another of its set. Every rank on a machine holds all images.

    Args:
        plan: Plan of the crops.
        device: Device that keeps the pixels and crops them.
        ranks: Number of processes that share the memory of the device.

    Raises:
        ValueError: The decoded images do not fit into the memory.
        ImageError: No image of a set can be read.
    """

    def __init__(self, plan: CropPlan, device: torch.device | str = "cpu", ranks: int = 1) -> None:
        self.plan, self.device = plan, torch.device(device)
        with ThreadPoolExecutor(8) as pool:
            self._sizes = list(pool.map(_size_or_none, plan.images))
            areas = [height * width for height, width in self._sizes]
            needed, free = 3 * sum(areas) * ranks, free_memory(self.device)
            if needed > USABLE * free:
                raise ValueError(
                    f"the decoded training images take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: "
                    "give --data.in_memory false, which decodes a file for each crop"
                )
            self._firsts = (np.cumsum(areas) - areas).tolist()
            self._pixels = torch.empty(sum(areas), 3, dtype=torch.uint8, device=self.device)
            errors = list(pool.map(self._load, range(len(areas))))
        self._image = self._replace([error is not None for error in errors])
        if failed := [error for error in errors if error]:
            warnings.warn(f"{len(failed)} of {len(errors)} training images left out; the first: {failed[0]}", stacklevel=2)

    def __len__(self) -> int:
        return len(self.plan.images)

    def __getitem__(self, number: int) -> int:
        return number

    def batch(self, numbers: Sequence[int]) -> Tensor:
        """Crops of B numbers, fp32 ``[B, 3, size, size]`` in [0, 1], on the device."""
        size = self.plan.size
        images = [self._image[self.plan.image_of(number)] for number in numbers]
        crops = [self.plan.crop_of(number, image, *self._sizes[image]) for number, image in zip(numbers, images, strict=True)]
        if self.device.type == "cpu":
            return to_float(torch.stack([cut(self._picture(image), crop, size) for image, crop in zip(images, crops, strict=True)]))
        firsts, widths = [self._firsts[image] for image in images], [self._sizes[image][1] for image in images]
        return cut_all(self._pixels, firsts, widths, crops, size) / 255

    def _picture(self, image: int) -> Tensor:
        """Pixels of an image, a view of the memory, uint8 ``[3, H, W]``."""
        height, width = self._sizes[image]
        first = self._firsts[image]
        return self._pixels[first : first + height * width].view(height, width, 3).permute(2, 0, 1)

    def _load(self, image: int) -> ImageError | None:
        try:
            pixels = self.plan.images[image].read()
        except ImageError as error:
            return error
        if pixels.shape[-2:] != self._sizes[image]:
            return ImageError(f"{self.plan.images[image].path} changed while it was read")
        self._picture(image).copy_(pixels)
        return None

    def _replace(self, failed: Sequence[bool]) -> list[int]:
        """Index of the image that is used in place of each image: its own index, unless it failed."""
        chosen: list[int] = []
        for image in range(len(failed)):
            stand_in = next((other for other in self.plan.stand_ins(image) if not failed[other]), None)
            if stand_in is None:
                raise nothing_readable(self.plan, image)
            chosen.append(stand_in)
        return chosen


def free_memory(device: torch.device, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory in bytes: of a GPU; or of the machine, within the limits of the process's control groups.

    Args:
        device: Device of the memory.
        proc: Folder of Linux's process information.
        cgroups: Folder of Linux's control groups, by which Slurm and containers limit memory.
    """
    if device.type != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    try:
        fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = 1024 * int(fields["MemAvailable"].split()[0])
    group = _own_group(proc)
    for path in (group, *group.parents):
        folder = cgroups / path
        try:
            limit = (folder / "memory.max").read_text().strip()
            if limit != "max":
                # Cached pages of files count as used, but Linux frees them when memory runs short.
                parts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                used = int((folder / "memory.current").read_text())
                free = min(free, int(limit) - used + int(parts["active_file"]) + int(parts["inactive_file"]))
        except OSError:  # a group without a limit of its own
            continue
    return max(free, 0)


def _own_group(proc: Path) -> Path:
    """Control group (version 2) of this process, relative to the folder of all groups."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return Path()
    return Path(next((line[4:] for line in lines if line.startswith("0::/")), ""))


def _size_or_none(image: ImageSource) -> tuple[int, int]:
    """Height and width of an image in pixels; (0, 0) where its header cannot be read."""
    try:
        return image.size()
    except ImageError:
        return 0, 0
