"""A channel of the latents of an image beside its predicted scales, as pictures: figure 2 of Balle et al. 2018."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sga.codecs import Codec, Prior, Quantised
from sga.codecs.adaptation import LOWEST_SCALE
from sga.images import to_uint8
from sga.refinement.rounding import hard_round

WHITENED_RANGE = 3.0
"""Whitened latents are drawn from black to white over so many standard deviations on either side of 0."""

PANEL_SIDE = 400
"""Longer side of a panel in pixels, about."""


def latent_panels(codec: Codec, x: Tensor, image: Tensor) -> dict[str, tuple[str, Tensor]]:
    """A caption and a uint8 picture ``[3, H, W]`` each: ``image``, ``y``, ``mu``, ``sigma``, ``whitened``; of one size, on the CPU.

    Args:
        codec: Any codec; without a hyperprior there are ``image`` and ``y`` alone, without means no ``mu``.
        x: ONE padded image, ``[1, 3, H', W']`` in [0, 1].
        image: The same without its padding, ``[3, H, W]``.
    """
    latents = codec.analyse(x)
    quantised = codec.quantise(latents, hard_round, hard_round)
    return draw_channel(channel_of(codec, latents.y, quantised.prior, telling_channel(quantised), image), image)


@dataclass(frozen=True)
class LatentChannel:
    """A channel of the latents of one image, on the CPU, without what is of padding alone: ``[rows, columns]`` each.

    Attributes:
        number: Number of the channel.
        y: Latents, rounded or not.
        means: Means that the codec predicts, or ``None``.
        scales: Standard deviations that it predicts; ``None`` without a hyperprior.
        whitened: ``y`` less its means over its scales; ``None`` without a hyperprior.
    """

    number: int
    y: Tensor
    means: Tensor | None
    scales: Tensor | None
    whitened: Tensor | None


def channel_of(codec: Codec, y: Tensor, prior: Prior | None, number: int, image: Tensor) -> LatentChannel:
    """Channel ``number`` of ``y`` ``[1, M, H'/16, W'/16]`` where the image ``[3, H, W]`` lies."""
    rows, columns = (-(-side // codec.y_stride) for side in image.shape[-2:])

    def crop(values: Tensor) -> Tensor:
        return values[0, number, :rows, :columns].float().cpu()

    if prior is None:
        return LatentChannel(number, crop(y), None, None, None)
    means = None if prior.means is None else crop(prior.means)
    scales = crop(prior.scales).clamp(min=LOWEST_SCALE)
    centred = crop(y) if means is None else crop(y) - means
    return LatentChannel(number, crop(y), means, scales, centred / scales)


def draw_channel(
    channel: LatentChannel, image: Tensor, name: str = "y", beside: Sequence[LatentChannel] = ()
) -> dict[str, tuple[str, Tensor]]:
    """The pictures of :func:`latent_panels`.

    Args:
        channel: Channel to be drawn.
        image: ``[3, H, W]`` in [0, 1].
        name: Name of the latents in captions.
        beside: Others that are drawn beside it, in the same ranges of grey.
    """
    together = (channel, *beside)
    size = [max(1, round(side * PANEL_SIDE / max(image.shape[-2:]))) for side in image.shape[-2:]]

    def enlarge(gray: Tensor) -> Tensor:
        return to_uint8(F.interpolate(gray[None, None], size, mode="nearest-exact")[0]).expand(3, -1, -1)

    largest = max(1.0, *(float(each.y.abs().max()) for each in together))
    photograph = F.interpolate(image[None].float().cpu(), size, mode="bilinear", antialias=True)[0]
    panels = {"image": ("image", to_uint8(photograph))}
    caption = f"{name}, channel {channel.number}: -{largest:.1f} to {largest:.1f}"
    panels["y"] = caption, enlarge(channel.y / largest / 2 + 0.5)
    if channel.means is not None:
        panels["mu"] = f"mu: -{largest:.1f} to {largest:.1f}", enlarge(channel.means / largest / 2 + 0.5)
    if channel.scales is None or channel.whitened is None:
        return panels
    scales = [each.scales for each in together if each.scales is not None]
    least, most = min(float(each.min()) for each in scales), max(float(each.max()) for each in scales)
    octaves = torch.log2(channel.scales / least)  # linear, the few largest would leave the others black
    panels["sigma"] = f"sigma, log: {least:.2f} to {most:.1f}", enlarge(octaves / max(1.0, math.log2(most / least)))
    ratio = f"{name} / sigma" if channel.means is None else f"({name} - mu) / sigma"
    caption = f"{ratio}: -{WHITENED_RANGE:.0f} to {WHITENED_RANGE:.0f}"
    panels["whitened"] = caption, enlarge(channel.whitened / (2 * WHITENED_RANGE) + 0.5)
    return panels


def telling_channel(quantised: Quantised) -> int:
    """The channel of ``y_hat`` (batch of 1) in which the prior saves the most bits against one scale for the whole channel.

    (The one with the most bits of all is a small copy of the image, whose scale hardly varies.) Without a prior, the one that
    varies most.
    """
    y_hat, prior = quantised.y_hat, quantised.prior
    if prior is None:
        return int(y_hat.var((0, 2, 3)).argmax())
    centred = y_hat if prior.means is None else y_hat - prior.means
    one_scale = centred.square().mean((2, 3), keepdim=True).sqrt().expand_as(centred)
    return int((_bits(centred, one_scale) - _bits(centred, prior.scales)).argmax())


def _bits(centred: Tensor, scales: Tensor) -> Tensor:
    """Bits of each channel under N(0, scales^2) convolved with U(-1/2, 1/2), ``[M]``."""
    distance, scales = centred.abs(), scales.clamp(min=LOWEST_SCALE)
    # In the lower tail: in the upper one both terms round to 1.
    likelihood = torch.special.ndtr((0.5 - distance) / scales) - torch.special.ndtr((-0.5 - distance) / scales)
    return -torch.log2(likelihood.clamp(min=1e-9)).sum((0, 2, 3))
