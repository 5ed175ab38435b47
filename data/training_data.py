"""The images of training, validation and test."""

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
from data.folders import unique_names
from data.image_sets import Root, image_sets
from data.memory import CropsInMemory
from data.named_sets import images_of
from data.workers import leave_signals_to_the_main_process
from sga.images import ImageError, pad, read_image, to_float


def no_image() -> tuple[Tensor, Tensor]:
    """The batch of a rank without an image, and of an image that cannot be read."""
    return torch.zeros(0, 3, 64, 64), torch.tensor([[64, 64]])


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole photographs, a batch each: x ``[1, 3, H', W']`` fp32 in [0, 1], padded to multiples of ``stride``, and ``[[H, W]]``.

    One that cannot be read is reported and is an empty batch.
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
    """Random crops of photographs for training, whole photographs for validation and test.

    Training images are folders, searched at any depth, or WebDataset shards: uncompressed ``.tar`` files, or folders of them
    (``python -m data.shards`` makes some). Whole images are shared out over ranks, each to exactly one; a rank without one
    gets an empty batch.

    Args:
        root: Training images: a folder or shard; several, ``[DIR, DIR]``, of which every image counts the same; or several with
            weights, ``{DIR: 3, DIR: 1}``, by which a crop's folder is drawn. Needed to fit.
        valid: Folder of validation images; those of ``root`` are not used for it. Without one there is no validation.
        test: Folder of test images, or the name of a set that ``python -m data.fetch`` has fetched; by default those of ``valid``.
        crop_size: Side of a training crop in pixels, a multiple of 64.
        batch_size: Crops a step and device.
        steps_per_epoch: Batches between two validations; a multiple of ``--trainer.accumulate_grad_batches``.
        min_scale: JPEG photographs are reduced by a random factor in [min_scale, 1] before cropping.
        workers: Processes that decode and crop, where the images are not in memory; 0 does it in the main one. By default one for
            each CPU that the process may use.
        in_memory: Decode every photograph once and keep its pixels on the device that trains, which then crops. Every rank holds
            all of them.
        seed: Of the crops.

    Attributes:
        test_paths: The test images of all ranks, in order; the rank with number r of n has those at r, r + n, r + 2n, ...
        test_names: A name for each, good as a file's.

    Raises:
        ValueError: A number is out of range, or the folder that a command needs is not given.
        FileNotFoundError: A folder does not exist or holds no image.
    """

    def __init__(
        self,
        root: Root | None = None,
        valid: Path | None = None,
        test: Path | None = None,
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
        self.root, self.valid = root, valid and Path(valid)
        self.test = Path(test) if test else self.valid
        self.crop_size, self.batch_size, self.steps_per_epoch = crop_size, batch_size, steps_per_epoch
        self.min_scale, self.workers, self.in_memory, self.seed = min_scale, workers, in_memory, seed
        self.test_paths: list[Path] = []
        self.test_names: list[str] = []

    def setup(self, stage: str) -> None:
        """Reads or lists the training images (``fit``), lists those of validation or test."""
        if stage == "fit":
            if self.root is None:
                raise ValueError("fit needs training images: give their folder with --data.root")
            plan = CropPlan(image_sets(self.root), self.crop_size, self.seed, self.min_scale)
            self.crops = CropsInMemory(plan, self._device, self._ranks_here) if self.in_memory else RandomCrops(plan)
        if stage == "test":
            if self.test is None:
                raise ValueError("test needs images: give their folder with --data.test")
            self.test_paths = images_of(self.test)
            self.test_names = unique_names(self.test_paths)
        elif self.valid:
            self.valid_paths = images_of(self.valid)

    def train_dataloader(self) -> DataLoader[Any]:
        """Crops of a batch, going on where the run is; :meth:`on_after_batch_transfer` makes ``[B, 3, S, S]`` of them."""
        rank, world = self._share
        samples = self.batch_size * world
        workers = 0 if self.in_memory else self.workers
        return DataLoader(
            self.crops,
            batch_size=self.batch_size,
            sampler=ContiguousSampler(self.steps_per_epoch * samples, lambda: self._batches_used * samples, rank, world),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=not self.in_memory and self._device.type == "cuda",
            collate_fn=list if self.in_memory else None,
            worker_init_fn=leave_signals_to_the_main_process,
            drop_last=True,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Of training: uint8 crops, or the numbers of crops in memory, to fp32 ``[B, 3, S, S]`` in [0, 1] on the device."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.crops.batch(batch) if isinstance(self.crops, CropsInMemory) else to_float(batch)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]] | list[DataLoader[tuple[Tensor, Tensor]]]:
        """This rank's whole images, one a batch."""
        return self._whole(self.valid_paths) if self.valid else []

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """This rank's share of :attr:`test_paths`, one a batch."""
        return self._whole(self.test_paths)

    def _whole(self, paths: Sequence[Path]) -> DataLoader[tuple[Tensor, Tensor]]:
        rank, world = self._share
        if rank < len(paths):
            return DataLoader(WholeImages(paths[rank::world], self._stride), batch_size=None)
        # Lightning skips the evaluation of a rank without a batch, and the others would wait for it in vain.
        return DataLoader([no_image()], batch_size=None)  # type: ignore[arg-type]

    @property
    def _stride(self) -> int:
        """Sides of whole images become multiples of it: the decoder of a file assumes the codec's own."""
        return int(self.trainer.lightning_module.codec.stride) if self.trainer else 64  # type: ignore[arg-type]

    @property
    def _share(self) -> tuple[int, int]:
        """Rank and number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _batches_used(self) -> int:
        """Of the run so far, by each rank."""
        return self.trainer.fit_loop.epoch_loop.total_batch_idx + 1 if self.trainer else 0

    @property
    def _device(self) -> torch.device:
        """Where crops of images in memory are made: a CUDA device that trains; else the CPU."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")

    @property
    def _ranks_here(self) -> int:
        """Ranks that share the memory of the device."""
        return self.trainer.num_devices if self.trainer and self._device.type == "cpu" else 1


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
