"""Square crops of photographs, resampled to one size: one at a time for CPUs, a whole batch at once for GPUs.

Both use the cubic kernel of Keys (1981, a = -1/2), widened by the factor of the reduction against aliasing, as in Pillow's
``BICUBIC``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """A square ``[top : top + side, left : left + side]`` of an image in pixels, mirrored left to right where ``flipped``."""

    top: int
    left: int
    side: int
    flipped: bool


def cut(image: Tensor, crop: Crop, size: int) -> Tensor:
    """One crop, uint8 ``[3, size, size]``, of an image, uint8 ``[3, H, W]`` on the CPU."""
    square = image[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    if crop.side != size:
        # On uint8, torch has a vectorised kernel, some ten times as fast as Pillow's.
        square = F.interpolate(square[None], (size, size), mode="bicubic", antialias=True)[0]
    return square.flip(-1) if crop.flipped else square


def cut_all(pixels: Tensor, firsts: Sequence[int], widths: Sequence[int], crops: Sequence[Crop], size: int) -> Tensor:
    """Crops of a whole batch in a few kernels, fp32 ``[B, 3, size, size]`` of whole numbers in [0, 255]; see :func:`cut`.

    Args:
        pixels: Pixels of all images, uint8 ``[P, 3]``, row after row, image after image.
        firsts: Index in ``pixels`` of the first pixel of each crop's image.
        widths: Width in pixels of each crop's image.
        crops: Square of each crop, of any side.
        size: Side in pixels of the returned crops.
    """
    longest = max(crop.side for crop in crops)
    corners = [first + crop.top * width + crop.left for first, width, crop in zip(firsts, widths, crops, strict=True)]
    numbers = [corners, widths, [crop.side for crop in crops], [crop.flipped for crop in crops]]
    corner, width, side, flipped = torch.tensor(numbers).to(pixels.device, non_blocking=True)[..., None, None]  # [B, 1, 1] each
    # All squares have one size here; the repeated last rows and columns get no weight.
    place = torch.arange(longest, device=pixels.device).minimum(side - 1)  # [B, 1, L]
    squares = pixels[corner + place.mT * width + place].float()  # [B, L, L, 3]
    rows = cubic_weights(side, size, longest)  # [B, S, L]
    columns = torch.where(flipped.bool(), rows.flip(1), rows)
    # Rounded to 8 bits between the passes, as in the CPU kernels, which clip an overshoot of the first pass before the second.
    narrow = _to_8_bits(squares.permute(0, 3, 1, 2) @ columns.mT[:, None])  # [B, 3, L, S]
    return _to_8_bits(rows[:, None] @ narrow)


def cubic_weights(side: Tensor, size: int, longest: int) -> Tensor:
    """Weights with which the first ``side`` of ``longest`` samples are resampled to ``size`` samples.

    Args:
        side: Number of samples that count, whole numbers ``[B, 1, 1]``, at most ``longest``.
        size: Number of samples after resampling.
        longest: Number of samples before it.

    Returns:
        Weights, fp32 ``[B, size, longest]``; each row sums to 1.
    """
    scale = side / size
    target = torch.arange(size, device=side.device)[:, None]
    source = torch.arange(longest, device=side.device)
    distance = (source + 0.5 - (target + 0.5) * scale).abs() / scale.clamp(min=1)
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, far).masked_fill((distance >= 2) | (source >= side), 0)
    return weights / weights.sum(-1, keepdim=True)


def _to_8_bits(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255)
