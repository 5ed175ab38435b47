"""The rate-distortion Lagrangian of a codec, written once for training and for refinement; per image, every result ``[B]``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.codecs.base import Bits


@dataclass(frozen=True)
class RateDistortion:
    """Rate, distortion and their Lagrangian, one value an image (``[B]`` each).

    Attributes:
        bpp_y: Bits of y a pixel of the true image.
        bpp_z: Bits of z a pixel of the true image.
        mse: Mean squared error of the true pixels, for values in [0, 1].
        loss: ``lmbda * 255^2 * mse + bpp`` (Balle et al. 2018, in CompressAI's convention).
    """

    bpp_y: Tensor
    bpp_z: Tensor
    mse: Tensor
    loss: Tensor

    @property
    def bpp(self) -> Tensor:
        """Bits a pixel, ``[B]``."""
        return self.bpp_y + self.bpp_z

    @property
    def psnr_db(self) -> Tensor:
        """PSNR of the real-valued image in dB, ``[B]``; infinite for a perfect image."""
        return -10 * torch.log10(self.mse)


def mean_squared_error(x: Tensor, x_hat: Tensor, mask: Tensor | None = None) -> Tensor:
    """MSE of each image ``[B, 3, H, W]``, over the pixels where ``mask`` ``[B, 1, H, W]`` is 1 (``None``: all): ``[B]``."""
    squares = (x_hat - x).square()
    # Not flattened: that would copy, and its gradient would leave channels_last, which slows all that follows.
    if mask is None:
        return squares.mean((1, 2, 3))
    return (squares * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * x.shape[1])


def lagrangian(mse: Tensor, bpp: Tensor, lmbda: float) -> Tensor:
    """``lmbda * 255^2 * mse + bpp`` for pixel values in [0, 1]."""
    return lmbda * 255**2 * mse + bpp


def rate_distortion(
    x: Tensor, x_hat: Tensor, bits: Bits, lmbda: float, pixels: Tensor | int, mask: Tensor | None = None
) -> RateDistortion:
    """Rate and distortion of a batch.

    Args:
        x: Images ``[B, 3, H, W]`` in [0, 1].
        x_hat: Their reconstructions.
        bits: Bits of each image.
        lmbda: Weight of the distortion.
        pixels: True pixels of each image, ``[B]`` or one number for all.
        mask: 1 where a pixel belongs to the true image, ``[B, 1, H, W]``; ``None``: everywhere.
    """
    bpp_y, bpp_z = bits.y / pixels, bits.z / pixels
    mse = mean_squared_error(x, x_hat, mask)
    return RateDistortion(bpp_y, bpp_z, mse, lagrangian(mse, bpp_y + bpp_z, lmbda))
