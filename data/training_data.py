"""The images of training and validation."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.crops import ContiguousSampler, RandomCrops
from data.images import find_images, pad, read_image, to_float
from data.workers import leave_signals_to_the_main_process


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole photographs: ``(x, size)`` with x fp32 in [0, 1], padded to multiples of ``stride``, and size ``(H, W)`` before it."""

    def __init__(self, root: Path, stride: int = 64) -> None:
        self.paths = find_images(root)
        self.stride = stride

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = to_float(read_image(self.paths[index]))
        return pad(x, self.stride), torch.tensor(x.shape[-2:])


class TrainingDataModule(pl.LightningDataModule):
    """Random crops of a folder of photographs for training, whole photographs for validation.

    Args:
        root: Folder of training images, searched at any depth.
        valid: Folder of validation images; those of ``root`` are not used for it. Without one there is no validation.
        crop_size: Side of a training crop in pixels, a multiple of 64.
        batch_size: Crops a step and device.
        steps_per_epoch: Steps between two validations.
        min_scale: JPEG photographs are reduced by a random factor in [min_scale, 1] before cropping.
        workers: Processes that crop; 0 crops in the main one.
        in_memory: Decode every photograph once and keep its pixels.
        seed: Of the crops.

    Raises:
        ValueError: ``crop_size`` is not a multiple of 64.
        FileNotFoundError: A folder does not exist or holds no image.
    """

    def __init__(
        self,
        root: Path,
        valid: Path | None = None,
        crop_size: int = 256,
        batch_size: int = 16,
        steps_per_epoch: int = 1000,
        min_scale: float = 0.5,
        workers: int = 2,
        in_memory: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if crop_size < 64 or crop_size % 64:
            raise ValueError(f"data.crop_size must be a multiple of 64, not {crop_size}")
        self.root, self.valid = Path(root), valid and Path(valid)
        self.crop_size, self.batch_size, self.steps_per_epoch = crop_size, batch_size, steps_per_epoch
        self.min_scale, self.workers, self.in_memory, self.seed = min_scale, workers, in_memory, seed

    def setup(self, stage: str) -> None:
        """Reads the training images (``fit``) and lists those of validation."""
        if stage == "fit":
            paths = find_images(self.root)
            self.crops = RandomCrops(paths, self.crop_size, self.seed, self.min_scale, self.in_memory)
        self.whole = WholeImages(self.valid) if self.valid else None

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches ``[B, 3, crop_size, crop_size]``, going on where the run is."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        used = trainer.global_step * trainer.accumulate_grad_batches if trainer else 0
        samples = self.batch_size * world
        return DataLoader(
            self.crops,
            batch_size=self.batch_size,
            sampler=ContiguousSampler(self.steps_per_epoch * samples, used * samples, rank, world),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=leave_signals_to_the_main_process,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]] | list[DataLoader[tuple[Tensor, Tensor]]]:
        """Whole images, one a batch."""
        return DataLoader(self.whole, batch_size=1) if self.whole else []
