"""Reconstructions of validation images in TensorBoard while a codec trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger


def curve_step(trainer: pl.Trainer) -> int:
    """The step at which Lightning logs values now: the last finished optimiser step, counted from 0."""
    return max(0, trainer.global_step - 1)


class Reconstructions(pl.Callback):
    """Callback that draws the first validation images beside their reconstructions into TensorBoard.

    Args:
        images: Number of images, per rank.
    """

    def __init__(self, images: int = 4) -> None:
        self.images = images

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        assert isinstance(outputs, Mapping)
        if batch_idx >= self.images or len(outputs["x"]) == 0 or not isinstance(trainer.logger, TensorBoardLogger):
            return
        pair = torch.cat([outputs["x"][0], outputs["x_hat"][0]], dim=-1)
        trainer.logger.experiment.add_image(f"valid/{batch_idx}", pair.clamp(0, 1), curve_step(trainer))
