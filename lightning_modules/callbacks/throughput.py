"""Speed and memory of a training."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_modules.callbacks.reconstructions import curve_step


class Throughput(pl.Callback):
    """Callback that logs, every ``log_every_n_steps`` steps, the speed since the last log and the peak memory so far.

    - ``throughput/images_per_second``: crops per second of all ranks. Validation and writing checkpoints do not count.
    - ``throughput/data_wait``: share of the time, in [0, 1], in which the program waits for the next batch and its transfer. A
      GPU may still run earlier steps during that time, so this is an upper bound of the cost of data.
    - ``memory/peak_gib``: peak memory of tensors on the GPU, in GiB; on a CPU, peak resident set of the process.

    It never synchronises with the device: over several steps the effect of a GPU's queue averages out.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended: float | None = None
        self._logged = -1
        self._clear()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._started = time.perf_counter()
        if self._ended is not None:
            self._waiting += self._started - self._ended
            self._gaps += 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ended = time.perf_counter()
        self._working += self._ended - self._started
        self._batches += 1
        self._images += len(batch) * trainer.world_size
        step = curve_step(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (step + 1) % every == 0 and step != self._logged and self._gaps:
            self._log(trainer, step)
            self._logged = step
            self._clear()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = None  # the time until the next step is not a wait for data

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Mapping[str, Any]) -> None:
        self._ended = None

    def _log(self, trainer: pl.Trainer, step: int) -> None:
        working, waiting = self._working / self._batches, self._waiting / self._gaps
        values = {
            "throughput/images_per_second": self._images / self._batches / (working + waiting),
            "throughput/data_wait": waiting / (working + waiting),
            "memory/peak_gib": peak_memory_gib(trainer.strategy.root_device),
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def _clear(self) -> None:
        self._working = self._waiting = 0.0
        self._batches = self._gaps = self._images = 0


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: of tensors on a GPU; elsewhere the resident set of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
