"""Lambdas that a training of one codec for all rates draws, and the weights of their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sga.codecs.variable_rate_scale_hyperprior import REFERENCE_LMBDA

GOLDEN = (math.sqrt(5) - 1) / 2

LOSS_SLOPE = 0.45
"""d log(R-D loss) / d log(lambda) of CompressAI's published hyperpriors on Kodak: 0.34 at lambda 0.0018, 2.69 at 0.18."""


def lmbdas_of(numbers: Sequence[int], least: float, greatest: float) -> Tensor:
    """The lambda of each crop, ``[B]``, from its number in the run: log-uniform, and evenly spread over any few crops in a row."""
    shares = torch.tensor([number * GOLDEN % 1 for number in numbers])
    return least * (greatest / least) ** shares


def loss_weight(lmbda: Tensor) -> Tensor:
    """Factor of the loss of each crop, ``[B]``, with which the same relative gain counts the same at every rate."""
    return (lmbda / REFERENCE_LMBDA) ** -LOSS_SLOPE
