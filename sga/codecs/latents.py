"""What flows between a codec and those who use it: latents, their rounding, their prior, their bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sga.codecs.adaptation import Adaptation


@dataclass(frozen=True)
class Latents:
    """The real-valued latents of a batch, before any rounding.

    Attributes:
        y: Latents of the image, ``[B, M, H/16, W/16]``, in steps of the quantiser: integers (about an offset) can be coded.
        z: Hyper-latents, ``[B, N, H/64, W/64]``; ``None`` for a codec without a hyperprior.
        gain: Quantisation steps in one unit of the transforms' latents, per image, ``[B, 1, 1, 1]``; ``None`` for a codec of one
            rate, whose step is the unit.
    """

    y: Tensor
    z: Tensor | None
    gain: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Latents:
        """The latents with ``function`` applied to y and z."""
        return Latents(function(self.y), None if self.z is None else function(self.z), self.gain)

    def image(self, i: int) -> Latents:
        """Those of image ``i`` of the batch: ``[1, ...]``."""
        z, gain = (None if value is None else value[i : i + 1] for value in (self.z, self.gain))
        return Latents(self.y[i : i + 1], z, gain)

    def at(self, gain: Tensor) -> Latents:
        """The same latents of a codec of variable rate in the steps of another gain; z does not depend on it."""
        assert self.gain is not None
        return Latents(self.y * (gain / self.gain), self.z, gain.expand_as(self.gain))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that exist, y first."""
        return (self.y,) if self.z is None else (self.y, self.z)


@dataclass(frozen=True)
class Prior:
    """p(y_hat | z_hat): a Gaussian convolved with U(-1/2, 1/2), element by element.

    Attributes:
        scales: Standard deviations, ``[B, M, H/16, W/16]``, positive after the entropy model's lower bound of 0.11.
        means: Means of the same shape; ``None`` where the codec predicts none (all zero).
    """

    scales: Tensor
    means: Tensor | None = None

    def image(self, i: int) -> Prior:
        """That of image ``i`` of the batch: ``[1, ...]``."""
        return Prior(self.scales[i : i + 1], None if self.means is None else self.means[i : i + 1])


@dataclass(frozen=True)
class Quantised:
    """Quantised latents with the prior that the quantised hyper-latents predict.

    Attributes:
        y_hat: ``[B, M, H/16, W/16]``.
        z_hat: ``[B, N, H/64, W/64]`` or ``None``.
        prior: The density of ``y_hat`` by the model; ``None`` for a fully factorised codec.
        adaptations: What the file of each image changes about it; empty: nothing.
        gain: See :class:`Latents`; ``y_hat`` and ``prior`` are in steps of the quantiser.
    """

    y_hat: Tensor
    z_hat: Tensor | None
    prior: Prior | None
    adaptations: tuple[Adaptation | None, ...] = ()
    gain: Tensor | None = None

    def image(self, i: int) -> Quantised:
        """Image ``i`` of the batch: ``[1, ...]``."""
        z_hat = None if self.z_hat is None else self.z_hat[i : i + 1]
        prior = None if self.prior is None else self.prior.image(i)
        gain = None if self.gain is None else self.gain[i : i + 1]
        return Quantised(self.y_hat[i : i + 1], z_hat, prior, self.adaptations[i : i + 1], gain)

    @property
    def adapted_prior(self) -> Prior | None:
        """The prior as the adaptations have it.

        A prediction is rounded, as in the file, except where ``y_hat`` asks for a gradient.
        """
        if self.prior is None or not any(self.adaptations):
            return self.prior
        rows = []
        for i, adaptation in enumerate(self.adaptations):
            prior, y_hat = self.prior.image(i), self.y_hat[i : i + 1]
            scales, means = prior.scales, torch.zeros_like(y_hat) if prior.means is None else prior.means
            if adaptation is not None:
                shift = adaptation.predict(y_hat - means)
                scales, means = adaptation.scales(scales), means + (shift if shift.requires_grad else shift.round())
            rows.append((scales, means))
        return Prior(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


@dataclass(frozen=True)
class Bits:
    """Bits of each image of a batch, by the densities (not by the coder).

    Attributes:
        y: Bits of ``y_hat`` and of the adaptation of its prior, ``[B]``.
        z: Bits of ``z_hat``, ``[B]``; zero for a codec without a hyperprior.
    """

    y: Tensor
    z: Tensor

    @property
    def total(self) -> Tensor:
        """Bits of the image, ``[B]``."""
        return self.y + self.z
