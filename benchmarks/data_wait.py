"""Share of a training step that waits for data, in memory and from files: ``python benchmarks/data_wait.py --root DIR``.

Both train the scale hyperprior (N = 128, M = 192) with a Trainer, one after the other in one process. The wait is the time from the
end of a step to the start of the next. It includes fetching, moving and making the batch, and also Lightning's own work between
steps, so it is an upper bound. The first steps, in which workers start, do not count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytorch_lightning as pl
import torch

import lightning_modules.quiet  # noqa: F401
from data.training_data import TrainingDataModule
from lightning_modules.training_module import TrainingModule
from sga.codecs import ScaleHyperpriorCodec

UNCOUNTED = 2
"""Number of first steps that do not count."""


class Stopwatch(pl.Callback):
    """Callback that records the start and the end of each step in seconds.

    On a GPU it synchronises with the step's kernels: otherwise the host runs ahead, and its wait is not that of the device.
    """

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.starts.append(self._now(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.ends.append(self._now(trainer))

    @staticmethod
    def _now(trainer: pl.Trainer) -> float:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(data: TrainingDataModule, steps: int, precision: Any) -> dict[str, float]:
    """Mean time per step with its wait and mean wait per step, in seconds, and the share of the wait in [0, 1]."""
    stopwatch = Stopwatch()
    trainer = pl.Trainer(
        max_steps=UNCOUNTED + steps + 1,
        max_epochs=-1,
        precision=precision,
        callbacks=[stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    torch.manual_seed(0)
    trainer.fit(TrainingModule(ScaleHyperpriorCodec()), data)
    periods = [after - start for start, after in pairwise(stopwatch.starts)][UNCOUNTED:]
    waits = [after - end for end, after in zip(stopwatch.ends, stopwatch.starts[1:], strict=False)][UNCOUNTED:]
    seconds, wait = sum(periods) / steps, sum(waits) / steps
    return {"seconds_per_step": seconds, "seconds_wait": wait, "share": wait / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of training images")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for name, in_memory in (("in memory", True), ("from files", False)):
        data = TrainingDataModule(
            args.root, crop_size=args.crop_size, batch_size=args.batch_size, workers=args.workers, in_memory=in_memory
        )
        results[name] = result = measure(data, args.steps, args.precision)
        print(
            f"{name}: {result['share']:.2%} of a step waits for data "
            f"({1000 * result['seconds_wait']:.1f} ms of {result['seconds_per_step']:.3f} s)",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
