"""The measured numbers of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sga.distortion import MS_SSIM_MIN_SIDE, TruePixels
from sga.distortion import ms_ssim as _ms_ssim
from sga.rate_distortion import Objective


@dataclass(frozen=True)
class Quality:
    """Measured numbers of one file."""

    bpp: float
    psnr_db: float | None
    ms_ssim: float | None

    @classmethod
    def of(cls, original: Tensor, image: Tensor, bits: int) -> Quality:
        """The numbers of a file of so many bits that decodes to ``image``."""
        psnr = psnr_db(original, image)
        height, width = original.shape[-2:]
        return cls(bits / (height * width), psnr if math.isfinite(psnr) else None, ms_ssim(original, image))

    def loss(self, objective: Objective) -> float | None:
        """The R-D loss; ``None`` where the distortion is not defined."""
        return rd_loss(objective, self.bpp, self.psnr_db, self.ms_ssim)


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
    """The Lagrangian of measured numbers."""
    distortion = objective.measure.measured(psnr_db, ms_ssim)
    if distortion is None:
        return None
    rate = torch.tensor(bpp, dtype=torch.float64)
    return objective.loss(rate, rate.new_tensor(distortion)).item()
