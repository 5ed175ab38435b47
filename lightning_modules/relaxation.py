"""How latents that are no integers stand for a file while they are optimised: by a random sample, or in expectation.

Sampling (SGA, SGA+ and the baselines) rounds y and z at random and lets the loss of the sample stand for all. The expectation needs
no sample of y. Let y be rounded at random, each element alone, down with probability 1 - p and up with p, its fractional part. Then

- the mean of the rounded y is y itself;
- the expected bits are ``(1 - p) bits(floor y) + p bits(floor y + 1)``, exactly where the prior of an element does not depend on
  other elements of y (a context model and predicted channels see those at their means);
- the expected squared error is that of the mean, ``D(y)``, and, to second order, ``sum_i h_i p_i (1 - p_i)`` more, where
  ``h_i = sum over pixels of (d x_hat / d y_i)^2``.

The last term, weighted from 0 upwards while the steps pass, takes the place of a temperature: without it the loss is nearly convex,
with a weight of 1 it is the true expectation, and since p (1 - p) is concave every element ends at an integer. An element leaves
it where the slope g + w h + change of bits is below 0, w being the weight: at 1 exactly where moving it alone by 1 pays, by the
same second-order account; above, where it pays by (w - 1) h at least. No noise has to be averaged over steps, which is what makes
150 of them enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.codecs.adaptation import Adaptation
from lightning_modules.codecs.base import Bits, Codec, Latents, Quantised
from lightning_modules.rate_distortion import Objective, TruePixels, pixel_curvature
from lightning_modules.rounding import Noise, Rounding, SigmoidScaledLogitRounding
from lightning_modules.temperature import Ramp, Schedule

Adaptations = tuple[Adaptation | None, ...]
"""One an image; none at all where files adapt nothing."""


class ExpectedRounding(Rounding):
    """The expected loss of rounding y at random, see the module; z is sampled.

    Args:
        z: Relaxation of z, whose rounding changes the prior of y and has no such expectation.
        excess: Weight of the expected distortion beyond that of the mean, at each step.
        probes: Random directions from which the curvature h is estimated, once, at the start.
        stops: Whether steps stop at integers; without, they are plain Adam's.

    Raises:
        ValueError: There are no probes.
    """

    def __init__(self, z: Rounding | None = None, excess: Schedule = Ramp(0.0, 2.0), probes: int = 16, stops: bool = True) -> None:
        if probes < 1:
            raise ValueError(f"probes must be at least 1, not {probes}")
        self.z = SigmoidScaledLogitRounding(a=1.33) if z is None else z
        self.excess, self.probes, self.stops = excess, probes, stops

    def resting_at(self, step: int, steps: int) -> ExpectedRounding:
        """As it is at ``step`` of ``steps``, at every step: for going on a little from latents that were reached there, with
        fewer probes, as they take longer than a few steps do."""
        weight = self.excess(step, steps)
        return ExpectedRounding(self.z, Ramp(weight, weight), max(1, self.probes // 4), self.stops)

    def __call__(self, value: Tensor, offset: Tensor | None, tau: float, noise: Noise) -> Tensor:
        return self.z(value, offset, tau, noise)


@dataclass(frozen=True)
class Relaxed:
    """What stands for a file at one step.

    Attributes:
        x_hat: ``[B, 3, H, W]``.
        bits: Of each image.
        excess: Distortion to add to that of ``x_hat``, ``[B]``; ``None`` for a sample.
    """

    x_hat: Tensor
    bits: Bits
    excess: Tensor | None = None


class Relaxation:
    """A method at work on a batch of images.

    Args:
        rounding: The method.
        codec: Frozen, in the arithmetic of the steps.
        noise: Of the images.
    """

    def __init__(self, rounding: Rounding, codec: Codec, noise: Noise) -> None:
        self.rounding, self.codec, self.noise = rounding, codec, noise

    def __call__(self, latents: Latents, adaptations: Adaptations, tau: float, step: int, steps: int) -> Relaxed:
        """What stands for the file of ``latents`` with these adaptations, at ``step`` of ``steps`` and temperature ``tau``."""
        sample = self.codec.quantise(latents, lambda value, offset: self.rounding(value, offset, tau, self.noise))
        sample = replace(sample, adaptations=adaptations)
        return Relaxed(self.codec.synthesise(self.codec.dequantise(sample)), self.codec.bits(sample))

    def step(self, latents: Latents, optimizer: torch.optim.Optimizer) -> None:
        """A step of the optimiser from the gradients that the loss of the last call has left in ``latents``."""
        optimizer.step()


class Expectation(Relaxation):
    """As the base class, for :class:`ExpectedRounding`.

    Args:
        rounding, codec, noise: See :class:`Relaxation`.
        x: The images ``[B, 3, H, W]``.
        start: Where the curvature is taken.
        objective: Of the distortion.
        true: The pixels that count.
    """

    rounding: ExpectedRounding

    def __init__(
        self,
        rounding: ExpectedRounding,
        codec: Codec,
        noise: Noise,
        x: Tensor,
        start: Quantised,
        objective: Objective,
        true: TruePixels,
    ) -> None:
        super().__init__(rounding, codec, noise)
        self.curvature = self._curvature(x, start, objective, true)
        self._cell: _Cell | None = None

    def __call__(self, latents: Latents, adaptations: Adaptations, tau: float, step: int, steps: int) -> Relaxed:
        offsets: list[Tensor | None] = []

        def quantise(value: Tensor, offset: Tensor | None) -> Tensor:
            if value is not latents.y:
                return self.rounding(value, offset, tau, self.noise)
            offsets.append(offset)
            return value if self._cell is None or offset is None else self._cell.follow(value, offset)

        mean = replace(self.codec.quantise(latents, quantise), adaptations=adaptations)
        (offset,) = offsets
        centred = mean.y_hat if offset is None else mean.y_hat - offset
        floor = torch.floor(centred.detach())
        at_integer = centred.detach() == floor
        if self._cell is not None:  # what was put at an integer is at it, whatever adding the offset has rounded
            at_integer = self._cell.at_integer
            floor = torch.where(at_integer, self._cell.floor, floor)
        up = centred - floor  # the probability of rounding up
        down = floor if offset is None else floor + offset
        prior = mean.adapted_prior
        bits_down, bits_up = self.codec.bits_of_y(down, prior), self.codec.bits_of_y(down + 1, prior)
        expected = (1 - up) * bits_down + up * bits_up
        weight = self.rounding.excess(step, steps)
        excess = weight * (self.curvature * up * (1 - up)).sum((1, 2, 3))
        if self.rounding.stops and excess.requires_grad:
            excess.retain_grad()
            with torch.no_grad():
                bits_below = self.codec.bits_of_y(down - 1, prior)
                kink = bits_up - 2 * bits_down + bits_below
            self._cell = _Cell(floor, at_integer, None if offset is None else offset.detach(), kink, weight, excess)
        return Relaxed(self.codec.synthesise(self.codec.dequantise(mean)), self.codec.total_bits(expected, mean), excess)

    def step(self, latents: Latents, optimizer: torch.optim.Optimizer) -> None:
        """As the base class, but no element of y crosses an integer, and one at an integer stays where the loss rises both ways;
        see the module."""
        cell, y = self._cell, latents.y
        if cell is None:
            optimizer.step()
            return
        assert y.grad is not None and cell.excess.grad is not None
        with torch.no_grad():
            right = y.grad  # autograd has taken the element for one of the cell above
            left = right - (cell.kink + 2 * cell.weight * self.curvature * cell.excess.grad.view(-1, 1, 1, 1))
            stays = cell.at_integer & (left <= 0) & (right >= 0)
            falls = cell.at_integer & (left > 0)
            y.grad = torch.where(falls, left, right).masked_fill_(stays, 0)
        optimizer.step()
        with torch.no_grad():
            low = torch.where(falls, cell.floor - 1, cell.floor)
            high = torch.where(stays, low, low + 1)
            cell.stop(y, low, high)

    def _curvature(self, x: Tensor, start: Quantised, objective: Objective, true: TruePixels) -> Tensor:
        """Distortion that an element's own variance adds, of the shape of y: the diagonal of J^T W J.

        Estimated as the mean of (J^T W^(1/2) v)^2 over random signs v, and over neighbours, which have about the same.
        """
        y_hat = start.y_hat.detach().requires_grad_()
        x_hat = self.codec.synthesise(self.codec.dequantise(replace(start, y_hat=y_hat)))
        root = pixel_curvature(x, x_hat.detach(), objective, true, self.noise).sqrt()
        total = torch.zeros_like(y_hat)
        for _ in range(self.rounding.probes):
            signs = torch.where(self.noise.uniform(x_hat) < 0.5, -root, root)
            (gradient,) = torch.autograd.grad(x_hat, y_hat, signs, retain_graph=True)
            total += gradient.square()
        inside = (total > 0).float()  # latents of padding alone have no part in the mean
        total, inside = (F.avg_pool2d(F.pad(each, (1, 1, 1, 1), mode="replicate"), 3, stride=1) for each in (total, inside))
        return total / (self.rounding.probes * inside.clamp(min=1e-6))


@dataclass
class _Cell:
    """Between which integers the elements of y are, about the offsets, and what a step from there has to know.

    Attributes:
        floor: The integer below, or at, an element.
        at_integer: Whether it is at it.
        offset: About which it is rounded.
        kink: By how much the slope of its expected bits is greater above that integer than below.
        weight: Of the excess.
        excess: It gets the gradient of the loss.
    """

    floor: Tensor
    at_integer: Tensor
    offset: Tensor | None
    kink: Tensor
    weight: float
    excess: Tensor

    def stop(self, y: Tensor, low: Tensor, high: Tensor) -> None:
        """Keeps y between two integers about its offset, and remembers which elements are at one."""
        offset = 0.0 if self.offset is None else self.offset
        centred = (y - offset).clamp_(low, high)
        self.at_integer = (centred == low) | (centred == high)
        self.floor = torch.where(centred == low, low, high)
        y.copy_(centred + offset)

    def follow(self, y: Tensor, offset: Tensor) -> Tensor:
        """Moves the elements that are at an integer with the offset about which they are rounded; y, whose gradient reaches the
        offset by them."""
        with torch.no_grad():
            y.copy_(torch.where(self.at_integer, self.floor + offset, y))
        return torch.where(self.at_integer, y + (offset - offset.detach()), y)


def relaxation(
    rounding: Rounding, codec: Codec, noise: Noise, x: Tensor, start: Quantised, objective: Objective, true: TruePixels
) -> Relaxation:
    """The method at work; arguments as of :class:`Expectation`."""
    if isinstance(rounding, ExpectedRounding):
        return Expectation(rounding, codec, noise, x, start, objective, true)
    return Relaxation(rounding, codec, noise)
