"""The measured numbers of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sga.rate_distortion import MS_SSIM_MIN_SIDE, Objective, TruePixels
from sga.rate_distortion import ms_ssim as _ms_ssim


def psnr_db(image: Tensor, reconstruction: Tensor) -> float:
    """PSNR in dB of two uint8 images ``[3, H, W]``; infinite where they are equal."""
    mse = (image.double() - reconstruction.double()).square().mean().item()
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ms_ssim(image: Tensor, reconstruction: Tensor) -> float | None:
    """MS-SSIM of two uint8 images ``[3, H, W]``, in [0, 1]; ``None`` where a side is under 161 pixels."""
    if min(image.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    x = image[None].float()
    return float(_ms_ssim(x, reconstruction[None].float(), TruePixels.of(x), data_range=255.0))


def rd_loss(objective: Objective, bpp: float, psnr_db: float | None, ms_ssim: float | None) -> float | None:
    """The Lagrangian of measured numbers.

    Args:
        objective: Which one.
        bpp: Bits a pixel.
        psnr_db: In dB; ``None`` or infinite for a perfect image.
        ms_ssim: In [0, 1]; ``None`` where it is not defined, and then there is no Lagrangian of it.
    """
    if ms_ssim is None and objective.distortion == "ms_ssim":
        return None
    mse = 0.0 if psnr_db is None else 10 ** (-psnr_db / 10)
    rate, squares = (torch.tensor(value, dtype=torch.float64) for value in (bpp, mse))
    return objective.loss(rate, squares, None if ms_ssim is None else rate.new_tensor(ms_ssim)).item()
