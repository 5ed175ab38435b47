"""How latents that are no integers stand for a file while they are optimised.

A method is one of two kinds. A sampled one (SGA, SGA+ and the baselines) rounds y and z at random and lets the loss of the sample
stand for all: it is a formula (:mod:`sga.refinement.rounding`) in :class:`Sampled`. One that changes the loss or the step has a
:class:`Relaxation` of its own, as :mod:`sga.refinement.expectation` has.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sga.codecs.adaptation import Adaptation
from sga.codecs.base import Codec
from sga.codecs.latents import Bits, Latents, Quantised
from sga.distortion import TruePixels
from sga.rate_distortion import Objective
from sga.refinement.noise import Noise

Adaptations = tuple[Adaptation | None, ...]
"""One per image; none at all where files adapt nothing."""

Formula = Callable[[Tensor, Tensor | None, float, Noise], Tensor]
"""``formula(value, offset, tau, noise)``: a relaxed rounding; see :class:`sga.refinement.rounding.Rounding`."""


@dataclass(frozen=True)
class Problem:
    """A batch of images whose latents are to be optimised.

    Attributes:
        codec: Codec with frozen weights, in the arithmetic of the steps.
        x: Padded images ``[B, 3, H, W]`` in [0, 1].
        start: Latents of the base, rounded hard.
        objective: Loss that is minimised.
        true: Pixels that count.
        noise: Random numbers of the images.
    """

    codec: Codec
    x: Tensor
    start: Quantised
    objective: Objective
    true: TruePixels
    noise: Noise


@dataclass(frozen=True)
class Relaxed:
    """What stands for a file at one step.

    Attributes:
        x_hat: Reconstructions ``[B, 3, H, W]``.
        bits: Bits of each image.
        excess: Distortion to add to that of ``x_hat``, ``[B]``; ``None`` for a sample.
    """

    x_hat: Tensor
    bits: Bits
    excess: Tensor | None = None


class Relaxation(ABC):
    """A method at work on a batch of images."""

    @abstractmethod
    def __call__(self, latents: Latents, adaptations: Adaptations, tau: float, step: int, steps: int) -> Relaxed:
        """What stands for the file of ``latents`` with these adaptations, at ``step`` of ``steps`` and temperature ``tau``."""

    def step(self, latents: Latents, optimizer: torch.optim.Optimizer) -> None:
        """Takes a step of the optimiser from the gradients that the loss of the last call has left in ``latents``."""
        optimizer.step()


class Method(ABC):
    """What a configuration names as ``model.rounding``."""

    @abstractmethod
    def relaxation(self, problem: Problem) -> Relaxation:
        """The method at work on a batch."""

    def resting_at(self, step: int, steps: int) -> Method:
        """The method as it is at ``step`` of ``steps``, at every step: for going on a little from latents reached there."""
        return self

    @property
    def name(self) -> str:
        """Name for tables: ``SigmoidScaledLogitRounding`` is ``sigmoid_scaled_logit``."""
        return re.sub("(?<!^)([A-Z])", r"_\1", type(self).__name__.removesuffix("Rounding")).lower()


class Sampled(Relaxation):
    """One random sample of rounded latents per step.

    Args:
        formula: Relaxed rounding of y and of z.
        problem: Batch.
    """

    def __init__(self, formula: Formula, problem: Problem) -> None:
        self.formula, self.problem = formula, problem

    def __call__(self, latents: Latents, adaptations: Adaptations, tau: float, step: int, steps: int) -> Relaxed:
        codec = self.problem.codec

        def sample(value: Tensor, offset: Tensor | None) -> Tensor:
            return self.formula(value, offset, tau, self.problem.noise)

        quantised = replace(codec.quantise(latents, sample, sample), adaptations=adaptations)
        return Relaxed(codec.synthesise(codec.dequantise(quantised)), codec.bits(quantised))
