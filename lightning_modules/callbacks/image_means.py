"""PSNR, MS-SSIM and bpp as the field reports them: of the 8-bit image, per image, then the mean over images.

The same classes serve validation, test and refinement, so that a number means the same everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sga.quality import ms_ssim, psnr_db


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
