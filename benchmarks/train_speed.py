"""Images per second in training, here and in the loop of CompressAI's example script: ``python benchmarks/train_speed.py``.

All train the scale hyperprior (N = 128, M = 192) on the same crops in one process; blocks of steps alternate, so that a drift of
the machine's speed affects all. The loop of the example script is written from its description: fp32, contiguous tensors, two Adam
optimisers with a backward pass each. This project's is the step of ``TrainingModule`` in bf16, eager and compiled. The time of the
compilation is not part of the steps; it is printed separately.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from compressai.losses import RateDistortionLoss
from compressai.models import ScaleHyperprior
from torch import Tensor

import lightning_modules.quiet  # noqa: F401
from benchmarks.timing import timed
from lightning_modules.optimiser import adam
from lightning_modules.training_module import TrainingModule
from sga.codecs import ScaleHyperpriorCodec

LMBDA = 0.013


class Trainee(Protocol):
    """A model with its optimisers."""

    def step(self, x: Tensor) -> None:
        """Does one step on crops ``[B, 3, H, W]`` in [0, 1]."""


class Ours:
    """The module of ``train.py`` with its optimiser, without a Trainer."""

    def __init__(self, device: torch.device, compiled: bool) -> None:
        torch.manual_seed(0)
        self.module = TrainingModule(ScaleHyperpriorCodec(), LMBDA, compile=compiled).to(device)
        self.optimizer = adam(self.module.codec, 1e-4, 1e-3)

    def step(self, x: Tensor) -> None:
        with torch.autocast(x.device.type, torch.bfloat16):
            loss, _, _ = self.module.loss(x, range(len(x)))
        self.optimizer.zero_grad()
        loss.backward()
        self.module.configure_gradient_clipping(self.optimizer)
        self.optimizer.step()


class ExampleScript:
    """The model and step of CompressAI's example: R-D loss and its Adam, then auxiliary loss and its Adam."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        self.net = ScaleHyperprior(128, 192).to(device)
        self.criterion = RateDistortionLoss(lmbda=LMBDA)
        named = dict(self.net.named_parameters())
        self.main = [value for name, value in named.items() if not name.endswith(".quantiles")]
        self.optimizer = torch.optim.Adam(self.main, lr=1e-4)
        self.auxiliary = torch.optim.Adam([value for name, value in named.items() if name.endswith(".quantiles")], lr=1e-3)

    def step(self, x: Tensor) -> None:
        self.optimizer.zero_grad()
        self.auxiliary.zero_grad()
        loss = self.criterion(self.net(x), x)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        auxiliary_loss = self.net.aux_loss()
        auxiliary_loss.backward()
        self.auxiliary.step()


def measure(crop_size: int, batch_size: int, blocks: int, steps: int) -> dict[str, Any]:
    """Median seconds per step of each loop, and the ratios of the example script's to them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.rand(batch_size, 3, crop_size, crop_size, device=device)
    trainees: dict[str, Trainee] = {
        "example script": ExampleScript(device),
        "here, eager": Ours(device, False),
        "here, compiled": Ours(device, True),
    }

    def block(trainee: Trainee, count: int) -> float:
        def run() -> None:
            for _ in range(count):
                trainee.step(x)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return timed(run) / count

    first = {name: block(trainee, 1) for name, trainee in trainees.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainees}
    for _ in range(blocks):
        for name, trainee in trainees.items():
            seconds[name].append(block(trainee, steps))
    rival = seconds["example script"]
    return {
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "range": {name: [min(values), max(values)] for name, values in seconds.items()},
        "images_per_second": {name: batch_size / statistics.median(values) for name, values in seconds.items()},
        "ratio": {name: statistics.median(rival) / statistics.median(values) for name, values in seconds.items()},
        "ratio_range": {
            name: [min(pairs), max(pairs)]
            for name, values in seconds.items()
            for pairs in [[theirs / ours for theirs, ours in zip(rival, values, strict=True)]]
        },
        "seconds_to_compile": first["here, compiled"],
        "crops": [batch_size, crop_size],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="steps per block")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    result = measure(args.crop_size, args.batch_size, args.blocks, args.steps)
    for name, seconds in result["seconds"].items():
        low, high = result["range"][name]
        rate, ratio, (least, most) = (result[key][name] for key in ("images_per_second", "ratio", "ratio_range"))
        print(f"{name}: {seconds:.3f} s per step ({low:.3f} to {high:.3f}), {rate:.1f} images/s, ratio {ratio:.2f}", end="")
        print(f" ({least:.2f} to {most:.2f})")
    print(f"compiling took {result['seconds_to_compile']:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
