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
"""Whitened values drawn in white, in standard deviations; their negatives are drawn in black."""

PANEL_SIDE = 400
"""Approximate longer side of a panel in pixels."""


def latent_panels(codec: Codec, x: Tensor, image: Tensor) -> dict[str, tuple[str, Tensor]]:
    """Pictures of one channel of an image's latents: caption and uint8 ``[3, H, W]``, of one size, on the CPU, by name.

    The names are ``image``, ``y``, ``mu``, ``sigma`` and ``whitened``; without a hyperprior ``image`` and ``y`` alone, and without
    predicted means no ``mu``.

    Args:
        codec: Codec of the latents.
        x: ONE padded image, ``[1, 3, H', W']`` in [0, 1].
        image: The image without its padding, ``[3, H, W]`` in [0, 1].
    """
    latents = codec.analyse(x)
    quantised = codec.quantise(latents, hard_round, hard_round)
    return draw_channel(channel_of(codec, latents.y, quantised.prior, telling_channel(quantised), image), image)


@dataclass(frozen=True)
class LatentChannel:
    """One channel of an image's latents on the CPU, ``[rows, columns]`` each, without the positions that are padding alone.

    Attributes:
        number: Index of the channel.
        y: Latents, rounded or not.
        means: Predicted means; ``None`` where the codec predicts none.
        scales: Predicted standard deviations; ``None`` without a hyperprior.
        whitened: Latents less their means, divided by their scales; ``None`` without a hyperprior.
    """

    number: int
    y: Tensor
    means: Tensor | None
    scales: Tensor | None
    whitened: Tensor | None


def channel_of(codec: Codec, y: Tensor, prior: Prior | None, number: int, image: Tensor) -> LatentChannel:
    """Channel ``number`` of ``y`` ``[1, M, H'/16, W'/16]``, cropped to the part that codes the image ``[3, H, W]``."""
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
        channel: Channel to draw.
        image: Image, ``[3, H, W]`` in [0, 1].
        name: Name of the latents in captions.
        beside: Channels that are shown beside it, and therefore have the same ranges of grey.
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
    octaves = torch.log2(channel.scales / least)  # on a linear scale, the few largest would leave the others black
    panels["sigma"] = f"sigma, log: {least:.2f} to {most:.1f}", enlarge(octaves / max(1.0, math.log2(most / least)))
    ratio = f"{name} / sigma" if channel.means is None else f"({name} - mu) / sigma"
    caption = f"{ratio}: -{WHITENED_RANGE:.0f} to {WHITENED_RANGE:.0f}"
    panels["whitened"] = caption, enlarge(channel.whitened / (2 * WHITENED_RANGE) + 0.5)
    return panels


def telling_channel(quantised: Quantised) -> int:
    """Index of the channel of ``y_hat`` (batch of 1) whose prior saves the most bits over one scale for the whole channel.

    (The channel with the most bits is a small copy of the image, whose scale hardly varies.) Without a prior, it is the channel
    with the largest variance.
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
    # The difference is taken in the lower tail: in the upper tail both terms round to 1.
    likelihood = torch.special.ndtr((0.5 - distance) / scales) - torch.special.ndtr((-0.5 - distance) / scales)
    return -torch.log2(likelihood.clamp(min=1e-9)).sum((0, 2, 3))
