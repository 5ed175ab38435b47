"""Hard, noisy and stochastic relaxed rounding of latents.

A relaxed method is a class with one formula, :meth:`RelaxedRounding.log_weight`; temperature, noise, offsets and sampling live
once, in :class:`RelaxedRounding` for two candidates and :class:`ThreeClassRounding` for three (Yang et al. 2020, arXiv 2006.04240,
section 3.3; Perugachi-Diaz et al. 2024, arXiv 2401.17789, section 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.checks import require_positive

CLIP = 1e-5
"""Distances stay this far from 0 and 1, where the log-weights are infinite."""


def hard_round(value: Tensor, offset: Tensor | None = None) -> Tensor:
    """``value`` rounded to the nearest point of the integer grid about ``offset`` (``None``: about 0); no gradient."""
    return torch.round(value) if offset is None else torch.round(value - offset) + offset


class Noise:
    """Random numbers for a batch of which each image has its own generator.

    An image draws the same numbers in any batch, on any rank and in any order.

    Args:
        seeds: One seed an image.
        device: Where the numbers are drawn.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def uniform(self, like: Tensor) -> Tensor:
        """U(0, 1) of the shape of ``like`` ``[B, ...]`` in fp32, row i from the generator of image i."""
        out = torch.empty_like(like, dtype=torch.float32, memory_format=torch.contiguous_format)
        for row, generator in zip(out, self._generators, strict=True):
            row.uniform_(generator=generator)
        return out

    def logistic(self, like: Tensor) -> Tensor:
        """The difference of two Gumbel variables, drawn as one number: as :meth:`uniform`."""
        return torch.logit(self.uniform(like).clamp_(1e-7, 1 - 1e-7))

    def gumbel(self, like: Tensor) -> Tensor:
        """Standard Gumbel noise: as :meth:`uniform`."""
        return -torch.log(-torch.log(self.uniform(like).clamp_(1e-7, 1 - 1e-7)))


class BatchNoise(Noise):
    """Random numbers for a whole batch from one generator, for training on a GPU, whose steps would wait for the generators of all
    images.

    Args:
        seed: Of the generator.
        device: Where the numbers are drawn.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.empty_like(like, dtype=torch.float32).uniform_(generator=self._generator)


class Rounding(ABC):
    """A differentiable stand-in for rounding, used while latents are optimised or a codec is trained."""

    @abstractmethod
    def __call__(self, value: Tensor, offset: Tensor | None, tau: float, noise: Noise) -> Tensor:
        """The relaxed rounding of ``value`` ``[B, ...]`` about ``offset`` (``None``: 0) at temperature ``tau`` > 0."""


class UniformNoise(Rounding):
    """``value + U(-1/2, 1/2)``: the relaxation of training (Balle et al. 2018, section 2); ignores tau and offset."""

    def __call__(self, value: Tensor, offset: Tensor | None, tau: float, noise: Noise) -> Tensor:
        return value + (noise.uniform(value) - 0.5)


class StraightThrough(Rounding):
    """Hard rounding whose gradient is taken to be 1; ignores tau and noise."""

    def __call__(self, value: Tensor, offset: Tensor | None, tau: float, noise: Noise) -> Tensor:
        return value + (hard_round(value, offset) - value).detach()


class RelaxedRounding(Rounding):
    """Two-class stochastic rounding to floor(v) or floor(v) + 1.

    With log-weights l_k of the candidates c_k and Gumbel noise g_k, the sample is ``sum_k w_k c_k`` with
    ``w = softmax((l_k / tau + g_k) / tau)``. tau divides twice: in the distribution and in its Gumbel-softmax relaxation, as the
    original method does. As tau -> 0 it becomes hard rounding.
    """

    @abstractmethod
    def log_weight(self, distance: Tensor) -> Tensor:
        """Unnormalised log-probability, at tau = 1, of the candidate at ``distance`` in (0, 1) from the value."""

    def __call__(self, value: Tensor, offset: Tensor | None, tau: float, noise: Noise | None) -> Tensor:
        """As :meth:`Rounding.__call__`; without noise the mean of the distribution, ``w = softmax(l_k / tau)``."""
        if offset is None:
            return self._mixture(value, tau, noise)
        return self._mixture(value - offset, tau, noise) + offset

    def _mixture(self, value: Tensor, tau: float, noise: Noise | None) -> Tensor:
        """``sum_k w_k c_k`` about 0."""
        floor = torch.floor(value.detach())
        down = (value - floor).clamp(CLIP, 1 - CLIP)
        logit = (self.log_weight(1 - down) - self.log_weight(down)) / tau
        if noise is not None:
            logit = (logit + noise.logistic(value)) / tau
        return floor + torch.sigmoid(logit)


class AtanhRounding(RelaxedRounding):
    """SGA (Yang et al. 2020, equation 8): log-weight -atanh(d)."""

    def log_weight(self, distance: Tensor) -> Tensor:
        return -torch.atanh(distance)


class LinearRounding(RelaxedRounding):
    """SGA+ linear: probability 1 - d (Perugachi-Diaz et al. 2024, section 3.2)."""

    def log_weight(self, distance: Tensor) -> Tensor:
        return torch.log(1 - distance)


class CosineRounding(RelaxedRounding):
    """SGA+ cosine: probability cos^2(pi d / 2) (Perugachi-Diaz et al. 2024, section 3.2)."""

    def log_weight(self, distance: Tensor) -> Tensor:
        return 2 * torch.log(torch.cos(distance * (torch.pi / 2)))


class SigmoidScaledLogitRounding(RelaxedRounding):
    """SGA+ SSL: probability sigmoid(-a logit(d)) (Perugachi-Diaz et al. 2024, section 3.2).

    Args:
        a: Steepness, above 0. 1 is linear, near 1.6 resembles cosine, near 0.65 atanh; towards infinity, hard rounding.

    Raises:
        ValueError: ``a`` is not positive.
    """

    def __init__(self, a: float = 2.3) -> None:
        require_positive(a=a)
        self.a = a

    def log_weight(self, distance: Tensor) -> Tensor:
        return F.logsigmoid(-self.a * torch.logit(distance))


class ThreeClassRounding(RelaxedRounding):
    """Three-class stochastic rounding to round(v) - 1, round(v) or round(v) + 1 (Perugachi-Diaz et al. 2024, section 3).

    A method's :meth:`log_weight` is of distances in [0, 1.5]; where a weight vanishes, its argument stays ``CLIP`` before that.

    Args:
        r: Scales the distances: the smaller, the more weight the third candidate has. Above 0.
        n: Power of the weights: the larger, the steeper. Above 0.

    Raises:
        ValueError: A parameter is not positive.
    """

    def __init__(self, r: float = 0.98, n: float = 1.0) -> None:
        require_positive(r=r, n=n)
        self.r, self.n = r, n

    def _mixture(self, value: Tensor, tau: float, noise: Noise | None) -> Tensor:
        nearest = torch.round(value.detach())
        residual = value - nearest
        logits = torch.stack([self.log_weight((residual - candidate).abs()) / tau for candidate in (-1, 0, 1)])
        if noise is not None:
            logits = (logits + torch.stack([noise.gumbel(value) for _ in logits])) / tau
        below, _, above = torch.softmax(logits, 0)
        return nearest + (above - below)


class LinearThreeRounding(ThreeClassRounding):
    """SGA+ linear of three classes: weight max(1 - r d, 0)^n (Perugachi-Diaz et al. 2024, section 3).

    Args:
        r, n: See :class:`ThreeClassRounding`.
    """

    def __init__(self, r: float = 0.98, n: float = 1.5) -> None:
        super().__init__(r, n)

    def log_weight(self, distance: Tensor) -> Tensor:
        return self.n * torch.log((1 - self.r * distance).clamp(min=CLIP))


class CosineThreeRounding(ThreeClassRounding):
    """SGA+ cosine of three classes: weight cos(pi / 2 min(r d, 1))^n (Perugachi-Diaz et al. 2024, section 3).

    Args:
        r, n: See :class:`ThreeClassRounding`.
    """

    def __init__(self, r: float = 0.98, n: float = 2.0) -> None:
        super().__init__(r, n)

    def log_weight(self, distance: Tensor) -> Tensor:
        return self.n * torch.log(torch.cos((torch.pi / 2) * (self.r * distance).clamp(max=1 - CLIP)))


class SigmoidScaledLogitThreeRounding(ThreeClassRounding):
    """SGA+ SSL of three classes: weight sigmoid(-a logit(r d / 1.5))^n (Perugachi-Diaz et al. 2024, section 3).

    Args:
        r, n: See :class:`ThreeClassRounding`.
        a: Steepness, above 0; see :class:`SigmoidScaledLogitRounding`.
    """

    def __init__(self, r: float = 0.98, n: float = 1.4, a: float = 1.4) -> None:
        super().__init__(r, n)
        require_positive(a=a)
        self.a = a

    def log_weight(self, distance: Tensor) -> Tensor:
        return self.n * F.logsigmoid(-self.a * torch.logit((self.r / 1.5 * distance).clamp(CLIP, 1 - CLIP)))


class DeterministicAnnealing(Rounding):
    """A relaxed method without its noise, ``w = softmax(l_k / tau)``: tau divides once (Yang et al. 2020, ablation A4 of
    table 1, with the atanh of SGA).

    Args:
        method: Whose candidates and log-weights they are.
    """

    def __init__(self, method: RelaxedRounding) -> None:
        self.method = method

    def __call__(self, value: Tensor, offset: Tensor | None, tau: float, noise: Noise) -> Tensor:
        return self.method(value, offset, tau, None)
