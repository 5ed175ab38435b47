"""PSNR, MS-SSIM and bpp as the field reports them: of the 8-bit image, per image, then the mean over images.

The same classes serve validation, test and refinement, so that a number means the same everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.rate_distortion import MS_SSIM_MIN_SIDE, Objective, TruePixels
from lightning_modules.rate_distortion import ms_ssim as _ms_ssim


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


class ImageMean(Metric):
    """Mean over images of a number that each image has; images without one (``None``) are left out.

    Synchronised over ranks: each rank holds the sum and the count of its images.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, image: Tensor, reconstruction: Tensor, bits: Tensor) -> None:
        """One image: uint8 ``[3, H, W]``, its reconstruction, and a scalar number of bits."""
        value = self.measure(image, reconstruction, bits)
        if value is not None:
            self.total += value
            self.count += 1

    def measure(self, image: Tensor, reconstruction: Tensor, bits: Tensor) -> float | None:
        """The number of one image."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The mean; NaN without an image."""
        return self.total / self.count


class Psnr(ImageMean):
    """Mean PSNR in dB of 8-bit images (not the PSNR of the mean error)."""

    def measure(self, image: Tensor, reconstruction: Tensor, bits: Tensor) -> float:
        return psnr_db(image, reconstruction)


class MsSsim(ImageMean):
    """Mean MS-SSIM of 8-bit images, over those large enough to have one."""

    def measure(self, image: Tensor, reconstruction: Tensor, bits: Tensor) -> float | None:
        return ms_ssim(image, reconstruction)


class BitsPerPixel(ImageMean):
    """Mean bits a pixel."""

    def measure(self, image: Tensor, reconstruction: Tensor, bits: Tensor) -> float:
        return float(bits) / (image.shape[-2] * image.shape[-1])
