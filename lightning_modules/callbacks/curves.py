"""TensorBoard of a refinement: each image's curves and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.tensorboard import SummaryWriter

from lightning_modules.refinement_module import RefinedImage
from lightning_modules.refiner import CURVES

EVALUATED = ("rd_loss", "bpp", "psnr_db")


class RefinementCurves(pl.Callback):
    """Writes, for each image, a TensorBoard run with its curves against the step.

    ``relaxed/*`` is what the method optimises, ``true/*`` the hard-rounded image at each evaluation, ``image/*`` the pictures.

    Args:
        output: Folder of the job; the runs go to ``tensorboard/NAME`` in it.
        every: Steps between two points of the relaxed curves.
    """

    def __init__(self, output: Path, every: int = 5) -> None:
        self.folder = Path(output) / "tensorboard"
        self.every = every

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        images: Sequence[RefinedImage] = outputs
        for image in images:
            folder = self.folder / image.name
            for old in folder.glob("events.out.tfevents.*"):  # of an attempt that was stopped
                old.unlink()
            with SummaryWriter(str(folder)) as writer:
                for step in range(0, len(image.curves), self.every):
                    for name, value in zip(CURVES, image.curves[step].tolist(), strict=True):
                        writer.add_scalar(f"relaxed/{name}", value, step)
                for name, pixels in {
                    "original": image.original,
                    "base": image.base.image,
                    "refined": image.refined.image,
                }.items():
                    writer.add_image(f"image/{name}", pixels, image.best_step if name == "refined" else 0)
                for step, values in zip(image.evaluated_steps, image.evaluations.tolist(), strict=True):
                    for name, value in zip(EVALUATED, values, strict=True):
                        writer.add_scalar(f"true/{name}", value, step)
