"""The optimiser of a training and its schedule: plain torch."""

from __future__ import annotations

import math

import torch
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from sga.codecs import Codec


def adam(codec: Codec, learning_rate: float, auxiliary_learning_rate: float) -> Adam:
    """One fused Adam with two parameter groups, ``codec`` and ``quantiles``; the latter is what the auxiliary loss trains."""
    chosen = {id(parameter) for parameter in codec.quantiles}
    main = [parameter for parameter in codec.parameters() if id(parameter) not in chosen]
    return torch.optim.Adam(
        [
            {"params": main, "lr": learning_rate, "name": "codec"},
            {"params": codec.quantiles, "lr": auxiliary_learning_rate, "name": "quantiles"},
        ],
        fused=True,
    )


def cosine(optimizer: Adam, final_learning_rate: float, warmup_steps: int, steps: int) -> LambdaLR:
    """Linear warm-up, then a cosine to ``final_learning_rate`` at ``steps``, of the first group; the second stays as it is."""
    least = final_learning_rate / optimizer.param_groups[0]["lr"]

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        done = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
        return float(least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done)))

    return LambdaLR(optimizer, [factor, lambda _: 1.0])
