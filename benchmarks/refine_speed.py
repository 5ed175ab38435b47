"""Time per refinement step of this project and of the published code's loop, on one image: ``python benchmarks/refine_speed.py``.

The published loop is written from the description of the SGA code: fp32, contiguous tensors, weights that require gradients, both
Gumbel variables drawn, and a hard evaluation with a second synthesis at every step. Both run the same codec with random weights
(the arithmetic does not depend on them) on the same image in one process. Blocks of steps alternate, so that a drift of the
machine's speed affects both. The published loop runs with glibc's default allocator settings, as the published code does; its time
with the settings of this project is printed too. The ratio is that of the medians; its range is that of neighbouring blocks.
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

import lightning_modules.quiet  # noqa: F401
from benchmarks.timing import timed
from sga.allocator import keep_freed_memory
from sga.codecs import ScaleHyperpriorCodec
from sga.images import pad
from sga.rate_distortion import Objective
from sga.refinement.presets import preset
from sga.refinement.refiner import refine
from sga.refinement.settings import step_dtype
from sga.refinement.target import FixedLambda

LMBDA = 0.013


class PublishedLoop:
    """The published loop on one image; each call of :meth:`step` does one step."""

    def __init__(self, codec: ScaleHyperpriorCodec, x: Tensor) -> None:
        self.net, self.x = codec.net, x
        with torch.no_grad():
            y = self.net.g_a(x)
            z = self.net.h_a(y.abs())
        self.y, self.z = (value.clone().requires_grad_() for value in (y, z))
        self.optimizer = torch.optim.Adam([self.y, self.z], lr=5e-3)

    def step(self) -> None:
        loss, _ = self._loss(self._relax(self.y), self._relax(self.z))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            hard, _ = self._loss(self.y.round(), self.z.round())
            hard.item()

    def _relax(self, value: Tensor, tau: float = 0.5) -> Tensor:
        floor, ceil = value.floor(), value.ceil()
        eps = 1e-5
        distances = torch.stack([value - floor, ceil - value], dim=-1).clamp(-1 + eps, 1 - eps)
        logits = -torch.atanh(distances) / tau
        weights = torch.distributions.RelaxedOneHotCategorical(torch.tensor(tau), logits=logits).rsample()
        return (weights * torch.stack([floor, ceil], dim=-1)).sum(-1)

    def _loss(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        bottleneck, gaussian = self.net.entropy_bottleneck, self.net.gaussian_conditional
        likelihood_z, _, _ = bottleneck._likelihood(z.transpose(0, 1).reshape(z.shape[1], 1, -1))
        likelihood_y = gaussian._likelihood(y, self.net.h_s(z))
        bits = -(likelihood_y.clamp(min=1e-9).log2().sum() + likelihood_z.clamp(min=1e-9).log2().sum())
        x_hat = self.net.g_s(y)
        mse = (x_hat - self.x).square().mean()
        return bits / self.x[0, 0].numel() + LMBDA * 255**2 * mse, x_hat


def measure(height: int, width: int, blocks: int, steps: int) -> dict[str, Any]:
    """Seconds per step of both loops, their ratio, and facts about the machine.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        blocks: Number of blocks of each loop, in turn.
        steps: Steps per block of this project; a block of the published loop has a fifth of them, at least 2.
    """
    torch.manual_seed(0)
    ours, theirs = ScaleHyperpriorCodec(), ScaleHyperpriorCodec()
    theirs.load_state_dict(ours.state_dict())
    x = pad(torch.rand(1, 3, height, width), 64)
    rival = PublishedLoop(theirs, x)
    settings = preset("fast", steps)
    rival_steps = max(2, steps // 5)

    def ours_block() -> None:
        refine(ours.requires_grad_(False), x, [(height, width)], FixedLambda(Objective(LMBDA)), settings, [0])

    def rival_block() -> None:
        for _ in range(rival_steps):
            rival.step()

    here: list[float] = []
    there: list[float] = []
    there_kept: list[float] = []
    ours_block()
    rival.step()
    for _ in range(blocks):
        there_kept.append(timed(rival_block) / rival_steps)
        keep_freed_memory(False)
        there.append(timed(rival_block) / rival_steps)
        keep_freed_memory()
        here.append(timed(ours_block) / steps)
    ratios = [t / h for t, h in zip(there, here, strict=True)]
    return {
        "ratio": statistics.median(there) / statistics.median(here),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "seconds_per_step": statistics.median(here),
        "seconds_per_step_published": statistics.median(there),
        "seconds_per_step_published_kept_memory": statistics.median(there_kept),
        "ratio_kept_memory": statistics.median(there_kept) / statistics.median(here),
        "image": [width, height],
        "steps_a_block": steps,
        "blocks": blocks,
        "arithmetic": str(step_dtype(settings.precision, x.device)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(768, 512), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    width, height = args.size
    result = measure(height, width, args.blocks, args.steps)
    print(
        f"{result['seconds_per_step']:.3f} s per step here (hard evaluations, analysis and set-up included), "
        f"{result['seconds_per_step_published']:.3f} s published"
    )
    print(f"ratio {result['ratio']:.1f} ({result['ratio_min']:.1f} to {result['ratio_max']:.1f})")
    print(
        f"with this project's allocator the published loop takes {result['seconds_per_step_published_kept_memory']:.3f} s: "
        f"ratio {result['ratio_kept_memory']:.1f}"
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
