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
from sga.photograph import RefinedPhotograph
from sga.refinement.result import CURVES, EVALUATED, Progress


class RefinementCurves(pl.Callback):
    """Writes, for each image, a TensorBoard run with its curves against the step, which grow while it is refined.

    ``true/*`` is the hard-rounded image at each evaluation; ``relaxed/*`` what the method optimises; ``gap/rd_loss`` by how much
    its own loss is above the true one of the same latents, where lambda does not move. When the image is finished follow the
    pictures, ``image/*``.

    Args:
        output: Folder of the job; the runs go to ``tensorboard/NAME`` in it.
        every: Steps between two points of the relaxed curves, which have one at each evaluation besides.
    """

    def __init__(self, output: Path, every: int = 5) -> None:
        self.folder = Path(output) / "tensorboard"
        self.every = every
        self._images: dict[str, ImageCurves] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RefinementModule)
        pl_module.listeners.append(self._on_evaluation)

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: RefinementBatch, *_: Any, **__: Any
    ) -> None:
        assert isinstance(pl_module, RefinementModule)
        for file in batch.files:
            self._images[file.name] = ImageCurves(self.folder / file.name, self.every, gap=pl_module.target is None)

    def _on_evaluation(self, names: Sequence[str], progress: Progress) -> None:
        curves, evaluations = progress.curves.cpu(), progress.evaluations.cpu()
        for i, name in enumerate(names):
            self._images[name].extend(curves[..., i], evaluations[..., i], progress.evaluated_steps)

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        images: Sequence[RefinedImage] = outputs
        for image in images:
            self._images[image.name].finish(image.photograph)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for image in self._images.values():
            image.writer.close()
        self._images.clear()


class ImageCurves:
    """The TensorBoard run of an image, anew."""

    def __init__(self, folder: Path, every: int, gap: bool) -> None:
        for old in folder.glob("events.out.tfevents.*"):  # of an attempt that was stopped
            old.unlink()
        self.writer = SummaryWriter(str(folder))
        self.every, self.gap = every, gap
        self._relaxed = self._evaluated = 0  # what has been written of each

    def extend(self, curves: Tensor, evaluations: Tensor, evaluated_steps: Sequence[int]) -> None:
        """Writes what is new in the image's curves ``[step, len(CURVES)]`` and evaluations ``[n, len(EVALUATED)]`` up to now."""
        true = dict(zip(evaluated_steps, evaluations.tolist(), strict=True))
        for step, values in list(true.items())[self._evaluated :]:
            self._add("true", dict(zip(EVALUATED, values, strict=True)), step)
        # The relaxed loss of latents that were evaluated is that of the step after.
        for step in range(self._relaxed, len(curves)):
            if step % self.every == 0 or step in true:
                relaxed = dict(zip(CURVES, curves[step].tolist(), strict=True))
                self._add("relaxed", relaxed, step)
                if step in true and self.gap:
                    self._add("gap", {"rd_loss": relaxed["loss"] - true[step][EVALUATED.index("rd_loss")]}, step)
        # Where a batch is begun again, image by image, there is nothing new until it is where it was.
        self._relaxed, self._evaluated = max(self._relaxed, len(curves)), max(self._evaluated, len(true))
        self.writer.flush()

    def finish(self, image: RefinedPhotograph) -> None:
        """Writes what is left, and the pictures."""
        self.extend(image.curves, image.evaluations, image.evaluated_steps)
        for name, pixels in {"original": image.original, "base": image.base.image, "refined": image.refined.image}.items():
            self.writer.add_image(f"image/{name}", pixels, image.best_step if name == "refined" else 0)

    def _add(self, group: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)
