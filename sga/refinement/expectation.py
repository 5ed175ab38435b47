"""The expected loss of rounding at random, its curvature and its step: no sample of y is needed.

Let y be rounded at random, each element alone, down with probability 1 - p and up with p, its fractional part. Then

- the mean of the rounded y is y itself;
- the expected bits are ``(1 - p) bits(floor y) + p bits(floor y + 1)``, exactly where the prior of an element does not depend on
  other elements of y (a context model and predicted channels see those at their means);
- the expected squared error is that of the mean, ``D(y)``, and, to second order, ``sum_i h_i p_i (1 - p_i)`` more, where
  ``h_i = sum over pixels of (d x_hat / d y_i)^2``.

The last term, weighted from 0 upwards while the steps pass, takes the place of a temperature: without it the loss is nearly convex,
with a weight of 1 it is the true expectation, and since p (1 - p) is concave every element ends at an integer. An element leaves
it where the slope g + w h + change of bits is below 0, w being the weight: at 1 exactly where moving it alone by 1 pays, by the
same second-order account; above, where it pays by (w - 1) h at least. No noise has to be averaged over steps, which is what makes
60 of them enough, and a dozen most of the way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sga.codecs.latents import Latents
from sga.refinement.relaxation import Adaptations, Method, Problem, Relaxation, Relaxed
from sga.refinement.rounding import Rounding, SigmoidScaledLogitRounding, hard_round
from sga.refinement.schedules import Ramp, Schedule

SILENT = 0.01
"""Bits an element up to which a channel of z says nothing."""


class ExpectedRounding(Method):
    """The expected loss of rounding y at random, see the module; z is sampled, but for its channels that say nothing, which stay.

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

    def relaxation(self, problem: Problem) -> Relaxation:
        return Expectation(self, problem)

    def resting_at(self, step: int, steps: int) -> ExpectedRounding:
        """As the base class; with fewer probes, as they take longer than a few steps do."""
        weight = self.excess(step, steps)
        return ExpectedRounding(self.z, Ramp(weight, weight), max(1, self.probes // 4), self.stops)


class Expectation(Relaxation):
    """:class:`ExpectedRounding` at work on a batch.

    Args:
        method: Its settings.
        problem: Batch.
    """

    def __init__(self, method: ExpectedRounding, problem: Problem) -> None:
        self.method, self.problem = method, problem
        self.curvature = curvature(problem, method.probes)
        self._speaking = speaking(problem)
        self._cell: _Cell | None = None

    def __call__(self, latents: Latents, adaptations: Adaptations, tau: float, step: int, steps: int) -> Relaxed:
        codec = self.problem.codec
        about: list[Tensor | None] = []

        def round_y(y: Tensor, offset: Tensor | None) -> Tensor:
            """The mean of y rounded at random: y itself."""
            about.append(offset)
            return y if self._cell is None or offset is None else self._cell.follow(y, offset)

        def round_z(z: Tensor, offset: Tensor | None) -> Tensor:
            return torch.where(self._speaking, self.method.z(z, offset, tau, self.problem.noise), hard_round(z, offset))

        mean = replace(codec.quantise(latents, round_y, round_z), adaptations=adaptations)
        (offset,) = about
        centred = mean.y_hat if offset is None else mean.y_hat - offset
        floor = torch.floor(centred.detach())
        at_integer = centred.detach() == floor
        if self._cell is not None:  # what was put at an integer is at it, whatever adding the offset has rounded
            at_integer = self._cell.at_integer
            floor = torch.where(at_integer, self._cell.floor, floor)
        up = centred - floor  # the probability of rounding up
        down = floor if offset is None else floor + offset
        prior = mean.adapted_prior
        bits_down, bits_up = codec.bits_of_y(down, prior), codec.bits_of_y(down + 1, prior)
        expected = (1 - up) * bits_down + up * bits_up
        weight = self.method.excess(step, steps)
        excess = weight * (self.curvature * up * (1 - up)).sum((1, 2, 3))
        if self.method.stops and excess.requires_grad:
            excess.retain_grad()
            with torch.no_grad():
                bits_below = codec.bits_of_y(down - 1, prior)
                kink = bits_up - 2 * bits_down + bits_below
            self._cell = _Cell(floor, at_integer, None if offset is None else offset.detach(), kink, weight, excess)
        return Relaxed(codec.synthesise(codec.dequantise(mean)), codec.total_bits(expected, mean), excess)

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


def speaking(problem: Problem) -> Tensor:
    """Which channels of z say anything of an image, bool ``[B, N, 1, 1]``: those with bits in the base.

    Training leaves most channels at one value, for nothing, and any other costs some 30 bits. Adam would move such a channel as far
    in a step as the others.
    """
    z_hat = problem.start.z_hat
    if z_hat is None:
        return torch.ones((), dtype=torch.bool)
    return problem.codec.bits_of_z(z_hat).mean((2, 3), keepdim=True) > SILENT


def curvature(problem: Problem, probes: int) -> Tensor:
    """Distortion that the variance of each element of y adds, of the shape of y: the diagonal of J^T W J.

    J is the synthesis' Jacobian, W the curvature of the distortion. Estimated as the mean of (J^T W^(1/2) v)^2 over ``probes``
    vectors v of random signs, and over neighbours, which have about the same.

    Raises:
        ValueError: The objective is MS-SSIM and an image is too small for it.
    """
    codec, noise = problem.codec, problem.noise
    y_hat = problem.start.y_hat.detach().requires_grad_()
    x_hat = codec.synthesise(codec.dequantise(replace(problem.start, y_hat=y_hat)))
    root = problem.objective.measure.curvature(problem.x, x_hat.detach(), problem.true, noise.signs).sqrt()
    total = torch.zeros_like(y_hat)
    for _ in range(probes):
        signs = torch.where(noise.uniform(x_hat) < 0.5, -root, root)
        (gradient,) = torch.autograd.grad(x_hat, y_hat, signs, retain_graph=True)
        total += gradient.square()
    inside = (total > 0).float()  # latents of padding alone have no part in the mean
    total, inside = (F.avg_pool2d(F.pad(each, (1, 1, 1, 1), mode="replicate"), 3, stride=1) for each in (total, inside))
    return total / (probes * inside.clamp(min=1e-6))


@dataclass
class _Cell:
    """Between which integers the elements of y are, about the offsets, and what a step from there has to know.

    Attributes:
        floor: The integer below, or at, an element.
        at_integer: Whether it is at it.
        offset: About which it is rounded.
        kink: Slope of its expected bits above that integer, less the slope below it.
        weight: Weight of the excess.
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
