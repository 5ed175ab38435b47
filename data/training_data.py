"""Images of training, validation and test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.crops import ContiguousSampler, CropPlan, RandomCrops
from data.folders import folder_given, unique_names
from data.image_sets import Root, image_sets
from data.memory import CropsInMemory
from data.named_sets import images_of
from data.workers import PREFETCHED, leave_signals_to_the_main_process, require_shared_memory
from sga.images import ImageError, pad, read_image, to_float


def no_image() -> tuple[Tensor, Tensor]:
    """An empty batch, for a rank without an image and for an image that cannot be read: x ``[0, 3, 64, 64]`` and a size."""
    return torch.zeros(0, 3, 64, 64), torch.tensor([[64, 64]])


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole photographs, one per batch: x ``[1, 3, H', W']``, fp32 in [0, 1], padded to multiples of ``stride``, and ``[[H, W]]``.

    An image that cannot be read gives a warning and an empty batch.
    """

    def __init__(self, paths: Sequence[Path], stride: int) -> None:
        self.paths = paths
        self.stride = stride

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            x = to_float(read_image(self.paths[index]))
        except ImageError as error:
            warnings.warn(f"{error}; it is left out", stacklevel=2)
            return no_image()
        return pad(x, self.stride)[None], torch.tensor(x.shape[-2:])[None]


class TrainingDataModule(pl.LightningDataModule):
    """Data module of ``train.py``: random crops for training, whole photographs for validation and test.

    Training images are in folders, searched at any depth, or in WebDataset shards: uncompressed ``.tar`` files, or folders of them
    (``python -m data.shards`` makes some). Whole images are divided among the ranks, each to exactly one; a rank without an image
    gets an empty batch.

    Args:
        root: Training images: a folder or shard; several, ``[DIR, DIR]``, whose images are all drawn equally often; or several with
            weights, ``{DIR: 3, DIR: 1}``, by which the folder of a crop is drawn. Required by ``fit``.
        valid: Folder of validation images, or the name of a set that ``python -m data.fetch`` has downloaded. Without it there is
            no validation.
        test: Folder of test images, or the name of such a set; by default ``valid``.
        crop_size: Side of a training crop in pixels, a multiple of 64.
        batch_size: Number of crops per step and device.
        steps_per_epoch: Number of batches between two validations; a multiple of ``--trainer.accumulate_grad_batches``.
        min_scale: Least factor by which JPEG photographs are reduced before cropping; the factor is drawn from [min_scale, 1].
        workers: Number of processes that decode and crop where images are not in memory; 0 uses the main process. By default the
            number of CPUs that the process may use.
        in_memory: Whether every photograph is decoded once and kept on the training device, which then crops. Every rank holds all
            images.
        seed: Seed of the crops.

    Attributes:
        test_paths: Test images of all ranks, in order; rank r of n has those at r, r + n, r + 2n, ...
        test_names: Unique name of each test image, usable as a file name.

    Raises:
        ValueError: A number is out of range, or the images that a command needs are not given.
        FileNotFoundError: A folder does not exist or holds no image.
        ImageError: No image of a set can be read.
    """

    def __init__(
        self,
        root: Root | None = None,
        valid: str | Path | None = None,
        test: str | Path | None = None,
        crop_size: int = 256,
        batch_size: int = 16,
        steps_per_epoch: int = 1000,
        min_scale: float = 0.5,
        workers: int | None = None,
        in_memory: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if crop_size < 64 or crop_size % 64:
            raise ValueError(f"data.crop_size must be a multiple of 64, not {crop_size}")
        workers = _cpus() if workers is None else workers
        if min(batch_size, steps_per_epoch) < 1 or min(workers, seed) < 0:
            raise ValueError("data.batch_size and data.steps_per_epoch must be at least 1, data.workers and data.seed at least 0")
        if not 0 < min_scale <= 1:
            raise ValueError(f"data.min_scale must be above 0 and at most 1, not {min_scale}")
        self.root = root
        self.valid = None if valid is None else folder_given(valid)
        self.test = self.valid if test is None else folder_given(test)
        self.crop_size, self.batch_size, self.steps_per_epoch = crop_size, batch_size, steps_per_epoch
        self.min_scale, self.workers, self.in_memory, self.seed = min_scale, workers, in_memory, seed
        self.test_paths: list[Path] = []
        self.test_names: list[str] = []

    def setup(self, stage: str) -> None:
        """Reads or lists the training images (``fit``), and lists those of validation or test."""
        if stage == "fit":
            if self.root is None:
                raise ValueError("fit needs training images: give their folder with --data.root")
            plan = CropPlan(image_sets(self.root), self.crop_size, self.seed, self.min_scale)
            if not self.in_memory:
                require_shared_memory(self.workers * self._ranks, 3 * self.batch_size * self.crop_size**2)
            self.crops = CropsInMemory(plan, self._device, self._ranks_here) if self.in_memory else RandomCrops(plan)
        if stage == "test":
            if self.test is None:
                raise ValueError("test needs images: give their folder with --data.test")
            self.test_paths = images_of(self.test)
            self.test_names = unique_names(self.test_paths)
            _check_that_one_is_readable(self.test_paths)
        elif self.valid:
            self.valid_paths = images_of(self.valid)
            _check_that_one_is_readable(self.valid_paths)

    def train_dataloader(self) -> DataLoader[Any]:
        """Crops of training, from the first that the run has not used; :meth:`on_after_batch_transfer` makes ``[B, 3, S, S]``."""
        rank, world = self._share
        samples = self.batch_size * world
        workers = 0 if self.in_memory else self.workers
        return DataLoader(
            self.crops,
            batch_size=self.batch_size,
            sampler=ContiguousSampler(self.steps_per_epoch * samples, lambda: self._batches_used * samples, rank, world),
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            persistent_workers=workers > 0,
            pin_memory=not self.in_memory and self._device.type == "cuda",
            collate_fn=list if self.in_memory else None,
            worker_init_fn=leave_signals_to_the_main_process,
            drop_last=True,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch on the device; a training batch, of uint8 crops or their numbers, becomes fp32 ``[B, 3, S, S]`` in [0, 1]."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.crops.batch(batch) if isinstance(self.crops, CropsInMemory) else to_float(batch)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]] | list[DataLoader[tuple[Tensor, Tensor]]]:
        """This rank's share of the validation images, one per batch."""
        return self._whole(self.valid_paths) if self.valid else []

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """This rank's share of :attr:`test_paths`, one per batch."""
        return self._whole(self.test_paths)

    def _whole(self, paths: Sequence[Path]) -> DataLoader[tuple[Tensor, Tensor]]:
        rank, world = self._share
        if rank < len(paths):
            return DataLoader(WholeImages(paths[rank::world], self._stride), batch_size=None)
        # Lightning skips the evaluation on a rank without a batch, and the other ranks would wait for it forever.
        return DataLoader([no_image()], batch_size=None)  # type: ignore[arg-type]

    @property
    def _stride(self) -> int:
        """Stride of the codec: sides of whole images are padded to its multiples, as the decoder of a file assumes."""
        return int(self.trainer.lightning_module.codec.stride) if self.trainer else 64  # type: ignore[arg-type]

    @property
    def _share(self) -> tuple[int, int]:
        """Rank and number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _batches_used(self) -> int:
        """Number of batches that each rank has used in the run so far."""
        return self.trainer.fit_loop.epoch_loop.total_batch_idx + 1 if self.trainer else 0

    @property
    def _device(self) -> torch.device:
        """Device that crops images in memory: the training device if it is a CUDA device, else the CPU."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")

    @property
    def _ranks(self) -> int:
        """Number of ranks on this machine."""
        return self.trainer.num_devices if self.trainer else 1

    @property
    def _ranks_here(self) -> int:
        """Number of ranks that share the memory of the device."""
        return self._ranks if self._device.type == "cpu" else 1


def _check_that_one_is_readable(paths: Sequence[Path]) -> None:
    """Raises ImageError where none of the images can be read: there would be no loss to choose the best by, or to report."""
    first: ImageError | None = None
    for path in paths:
        try:
            read_image(path)
            return
        except ImageError as error:
            first = first or error
    raise ImageError(f"none of the {len(paths)} images can be read; the first: {first}")


def _cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
