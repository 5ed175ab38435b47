"""Seconds a training step, eager and compiled, in one process on the same crops: ``python benchmarks/train_speed.py``.

Both train the scale hyperprior (N = 128, M = 192) with the step of ``TrainingModule`` in bf16 on random crops; blocks of steps
of the two take turns, so that a machine whose speed drifts slows both. Compilation is not in the steps; it is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import lightning_modules.startup  # noqa: F401
from benchmarks.timing import timed
from lightning_modules.codecs import ScaleHyperpriorCodec
from lightning_modules.training_module import TrainingModule


class Trainee:
    """A module with its optimiser, without a Trainer."""

    def __init__(self, compiled: bool) -> None:
        torch.manual_seed(0)
        self.module = TrainingModule(ScaleHyperpriorCodec(), compile=compiled)
        self.optimizer = torch.optim.Adam(self.module.parameters(), 1e-4, fused=True)

    def step(self, x: Tensor) -> None:
        with torch.autocast(x.device.type, torch.bfloat16):
            loss, _, _ = self.module.loss(x, range(len(x)))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()


def measure(crop_size: int, batch_size: int, blocks: int, steps: int) -> dict[str, Any]:
    """Median seconds of a step, and the ratio eager to compiled."""
    x = torch.rand(batch_size, 3, crop_size, crop_size)
    trainees = {"eager": Trainee(False), "compiled": Trainee(True)}
    first = {name: timed(lambda trainee=trainee: trainee.step(x)) for name, trainee in trainees.items()}  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in trainees}
    for _ in range(blocks):
        for name, trainee in trainees.items():
            seconds[name] += [timed(lambda trainee=trainee: trainee.step(x)) for _ in range(steps)]  # type: ignore[misc]
    eager, compiled = (statistics.median(seconds[name]) for name in ("eager", "compiled"))
    return {
        "ratio": eager / compiled,
        "seconds_eager": eager,
        "seconds_compiled": compiled,
        "range_eager": [min(seconds["eager"]), max(seconds["eager"])],
        "range_compiled": [min(seconds["compiled"]), max(seconds["compiled"])],
        "seconds_to_compile": first["compiled"],
        "crops": [batch_size, crop_size],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    result = measure(args.crop_size, args.batch_size, args.blocks, args.steps)
    for name in ("eager", "compiled"):
        low, high = result[f"range_{name}"]
        print(f"{name}: {result[f'seconds_{name}']:.3f} s a step ({low:.3f} to {high:.3f})")
    print(f"ratio {result['ratio']:.2f}; compiling took {result['seconds_to_compile']:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
