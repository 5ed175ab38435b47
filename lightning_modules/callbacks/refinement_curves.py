"""TensorBoard runs of a refinement: curves and pictures of each image."""

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
    """Callback that writes a TensorBoard run per image, with curves against the step that grow while the image is refined.

    ``true/*`` are values of the hard-rounded latents at each evaluation; ``relaxed/*`` are values of the relaxation that the method
    optimises; ``gap/rd_loss`` is the method's own loss minus the true loss of the same latents, where lambda is fixed. The
    pictures, ``image/*``, are written when the image is finished.

    Args:
        output: Folder of the job; the runs go to ``tensorboard/NAME`` in it.
        every: Steps between two points of the relaxed curves, which also have a point at each evaluation.
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
    """Writer of the TensorBoard run of one image; it replaces the run of an earlier attempt."""

    def __init__(self, folder: Path, every: int, gap: bool) -> None:
        for old in folder.glob("events.out.tfevents.*"):  # left by an attempt that was stopped
            old.unlink()
        self.writer = SummaryWriter(str(folder))
        self.every, self.gap = every, gap
        self._relaxed = self._evaluated = 0  # numbers of points written so far

    def extend(self, curves: Tensor, evaluations: Tensor, evaluated_steps: Sequence[int]) -> None:
        """Writes the new points of the image's curves ``[steps, len(CURVES)]`` and evaluations ``[n, len(EVALUATED)]``."""
        true = dict(zip(evaluated_steps, evaluations.tolist(), strict=True))
        for step, values in list(true.items())[self._evaluated :]:
            self._add("true", dict(zip(EVALUATED, values, strict=True)), step)
        # Latents evaluated after n steps have their relaxed loss at index n: a step computes it before it moves them.
        for step in range(self._relaxed, len(curves)):
            if step % self.every == 0 or step in true:
                relaxed = dict(zip(CURVES, curves[step].tolist(), strict=True))
                self._add("relaxed", relaxed, step)
                if step in true and self.gap:
                    self._add("gap", {"rd_loss": relaxed["loss"] - true[step][EVALUATED.index("rd_loss")]}, step)
        # A batch that is begun again, image by image, has nothing new until it passes the point where it failed.
        self._relaxed, self._evaluated = max(self._relaxed, len(curves)), max(self._evaluated, len(true))
        self.writer.flush()

    def finish(self, image: RefinedPhotograph) -> None:
        """Writes the remaining points and the pictures."""
        self.extend(image.curves, image.evaluations, image.evaluated_steps)
        for name, pixels in {"original": image.original, "base": image.base.image, "refined": image.refined.image}.items():
            self.writer.add_image(f"image/{name}", pixels, image.best_step if name == "refined" else 0)

    def _add(self, group: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)
