"""TensorBoard of a refinement: each image's curves and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from data.refinement_data import RefinementBatch
from lightning_modules.refinement_module import RefinedImage, RefinementModule
from lightning_modules.refiner import CURVES

EVALUATED = ("rd_loss", "bpp", "psnr_db")


class RefinementCurves(pl.Callback):
    """Writes, for each image, a TensorBoard run with its curves against the step.

    ``live/rd_loss``, the true R-D loss of the latents that would be written now, grows while the image is refined. When it is
    finished follow ``relaxed/*``, what the method optimises, ``true/*``, the hard-rounded image at each evaluation, and
    ``image/*``, the pictures.

    Args:
        output: Folder of the job; the runs go to ``tensorboard/NAME`` in it.
        every: Steps between two points of the relaxed curves.
    """

    def __init__(self, output: Path, every: int = 5) -> None:
        self.folder = Path(output) / "tensorboard"
        self.every = every
        self._writers: dict[str, SummaryWriter] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RefinementModule)
        pl_module.listeners.append(self._on_evaluation)

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: RefinementBatch, *_: Any, **__: Any
    ) -> None:
        for file in batch.files:
            folder = self.folder / file.name
            for old in folder.glob("events.out.tfevents.*"):  # of an attempt that was stopped
                old.unlink()
            self._writers[file.name] = SummaryWriter(str(folder))

    def _on_evaluation(self, names: Sequence[str], step: int, rd_loss: Tensor) -> None:
        for name, value in zip(names, rd_loss.tolist(), strict=True):
            self._writers[name].add_scalar("live/rd_loss", value, step)
            self._writers[name].flush()

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        images: Sequence[RefinedImage] = outputs
        for image in images:
            self._write(image, self._writers[image.name])
        self._close()

    def _write(self, image: RefinedImage, writer: SummaryWriter) -> None:
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

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
