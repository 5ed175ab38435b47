"""Progress of a refinement: batches, steps, R-D loss, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from rich import progress as bars

from data.refinement_data import RefinementBatch
from lightning_modules.refinement_module import RefinedImage, RefinementModule
from sga.photograph import RefinedPhotograph
from sga.refinement.result import Progress


class RefinementProgress(pl.Callback):
    """Callback of the first rank: shows a bar on a terminal, and prints a line per batch elsewhere (a log file)."""

    def __init__(self) -> None:
        self._bar: bars.Progress | None = None
        self._task: bars.TaskID = bars.TaskID(0)
        self._steps = 0
        self._done = 0
        self._started = 0.0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, RefinementModule)
        (batches,) = trainer.num_predict_batches
        # Coding, decoding and writing take about as long as ten steps.
        self._steps = pl_module.settings.steps + 10
        self._started = time.monotonic()
        self._bar = bars.Progress(
            bars.TextColumn("{task.fields[images]} batches"),
            bars.BarColumn(),
            bars.TextColumn("step {task.fields[step]}  R-D loss {task.fields[loss]}"),
            bars.TextColumn("{task.percentage:.0f} %"),
            bars.TimeRemainingColumn(),
        )
        self._batches = int(batches)
        self._task = self._bar.add_task("refine", total=self._batches * self._steps, images=f"0/{batches}", step="0", loss="-")
        if self._bar.console.is_terminal:
            self._bar.start()
        pl_module.listeners.append(self._on_evaluation)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RefinementBatch,
        *_: Any,
        **__: Any,
    ) -> None:
        if self._bar is None:
            return
        images: Sequence[RefinedImage] = outputs
        self._done += 1
        self._bar.update(self._task, completed=self._done * self._steps, images=f"{self._done}/{self._batches}")
        if not self._bar.console.is_terminal:
            elapsed = time.monotonic() - self._started
            left = elapsed / self._done * (self._batches - self._done)
            done = {image.name for image in images}
            names = ", ".join(sorted(done) + [f"{name} failed" for name in self._failed(pl_module, batch)])
            losses = ", ".join(_change(image.photograph) for image in images)
            print(f"[{self._done}/{self._batches}] {names}  {losses}  {elapsed:.0f} s, {left:.0f} s left", flush=True)

    @staticmethod
    def _failed(module: pl.LightningModule, batch: RefinementBatch) -> list[str]:
        assert isinstance(module, RefinementModule)
        return [*batch.failures, *(file.name for file in batch.files if file.name in module.failures)]

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _on_evaluation(self, names: Sequence[str], progress: Progress) -> None:
        assert self._bar is not None
        step, loss = progress.evaluated_steps[-1], f"{progress.best_loss.mean():.4f}"
        self._bar.update(self._task, completed=self._done * self._steps + step, step=str(step), loss=loss)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _change(photograph: RefinedPhotograph) -> str:
    before, after = (coded.quality.loss(photograph.objective) for coded in (photograph.base, photograph.refined))
    return f"R-D loss {before:.4f} -> {after:.4f}"
