"""Finds the :class:`Adaptation` of an image's latents that saves more bits than it costs; in closed form where that exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sga.codecs.adaptation import (
    GAIN_UNIT,
    LOWEST_SCALE,
    MAX_GAIN,
    MAX_WEIGHT,
    TAPS,
    WEIGHT_UNIT,
    Adaptation,
    neighbours,
    tap_values,
)
from sga.codecs.base import Codec
from sga.codecs.latents import Prior, Quantised

PREDICTED = 8
"""Channels that are predicted at most: the coarse picture of an image lies in few."""

CHANNEL_BITS, GAIN_BITS = 8 + 5 * TAPS, 5
"""About what a predicted channel and a gain cost in the file; the decision about the whole is by its bytes."""

COARSE, FINE = (-12, -8, -4, -2, 2, 4, 8, 12), (-1, 1)
"""Gains that are tried, the latter about the best of the former and 0."""


@torch.no_grad()
def adapt(codec: Codec, quantised: Quantised) -> Quantised:
    """Hard-rounded latents with the adaptations of their images that pay, in place of any that they have."""
    plain = replace(quantised, adaptations=())
    if not codec.adaptable:
        return plain
    found = []
    for i in range(len(plain.y_hat)):
        one = plain.image(i)
        adaptation = fit(codec, one)
        adapted = replace(one, adaptations=(adaptation,)).adapted_prior
        saved = codec.bits_of_y(one.y_hat, one.prior).sum() - codec.bits_of_y(one.y_hat, adapted).sum()
        found.append(adaptation if float(saved) > adaptation.bits else None)
    return replace(plain, adaptations=tuple(found))


@torch.no_grad()
def fit(codec: Codec, quantised: Quantised) -> Adaptation:
    """The adaptation of ONE image's hard-rounded latents whose channels pay one by one.

    The weights minimise the squared error of the prediction over the variances, by least squares; the gains are searched for in
    the exact bits.
    """
    assert quantised.prior is not None
    symbols = quantised.y_hat if quantised.prior.means is None else quantised.y_hat - quantised.prior.means
    symbols, scales = symbols.contiguous(), quantised.prior.scales.clamp(min=LOWEST_SCALE).contiguous()
    channels = symbols.shape[1]
    importance = (scales.square() + 1 / 12).reciprocal()

    def bits(residuals: Tensor, scales: Tensor) -> Tensor:
        return codec.bits_of_y(residuals, Prior(scales)).sum((0, 2, 3))

    model = bits(symbols, scales)
    # Every channel by its own neighbours first, all at once.
    taps = torch.stack(neighbours(symbols[0]), 1)  # [M, taps, h, w]
    alone = _weights(taps, symbols[0], importance[0])
    own = (alone.to(taps)[:, :, None, None] * WEIGHT_UNIT * taps).sum(1)
    _, predicted = _gains(bits, symbols - own[None].round(), scales)
    _, scaled = _gains(bits, symbols, scales)
    savings = torch.minimum(model, scaled + GAIN_BITS) - predicted - CHANNEL_BITS
    chosen = [channel for channel in savings.argsort(descending=True).tolist()[:PREDICTED] if savings[channel] > 0]
    weights = []
    for position, channel in enumerate(chosen):
        taps = torch.stack(tap_values(symbols, chosen, position), 1)
        (found,) = _weights(taps, symbols[:, channel], importance[:, channel]).tolist()
        weights.append((*found, *[0] * (TAPS - len(found))))
    adaptation = Adaptation((0,) * channels, tuple(chosen), tuple(weights))
    residuals = symbols - adaptation.predict(symbols).round()
    gains, scaled = _gains(bits, residuals, scales)
    kept = torch.where(bits(residuals, scales) - scaled > GAIN_BITS, gains, 0)
    return replace(adaptation, gains=tuple(kept.tolist()))


def _weights(taps: Tensor, wanted: Tensor, importance: Tensor) -> Tensor:
    """Weighted least squares of ``wanted`` ``[n, h, w]`` by the taps ``[n, taps, h, w]``, in units of the file: ``[n, taps]``."""
    values = taps.flatten(2).double()
    weighted = values * importance.flatten(1)[:, None]
    ridge = 1e-3 * torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    solved = torch.linalg.solve(weighted @ values.mT + ridge, weighted @ wanted.flatten(1).double()[:, :, None])[..., 0]
    return (solved / WEIGHT_UNIT).round().clamp(-MAX_WEIGHT, MAX_WEIGHT).long()


def _gains(bits: Callable[[Tensor, Tensor], Tensor], residuals: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The best gain of each channel and the bits of the channel with it, ``[M]`` each."""
    gains = torch.zeros(residuals.shape[1], dtype=torch.int64, device=residuals.device)
    least = bits(residuals, scales)
    for steps in (COARSE, FINE, FINE):
        centre = gains.clone()
        for step in steps:
            tried = (centre + step).clamp(-MAX_GAIN, MAX_GAIN)
            found = bits(residuals, scales * torch.exp(tried * GAIN_UNIT).view(1, -1, 1, 1))
            gains, least = torch.where(found < least, tried, gains), torch.minimum(found, least)
    return gains, least
