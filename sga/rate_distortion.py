"""The rate-distortion Lagrangian of a codec, written once for training, refinement and files; per image, every result ``[B]``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sga.codecs.latents import Bits
from sga.distortion import DISTORTIONS, Distortion, DistortionName, TruePixels, mean_squared_error


@dataclass(frozen=True)
class Objective:
    """The Lagrangian that is minimised, ``lmbda * scale * distortion + bpp``, in CompressAI's convention.

    Attributes:
        lmbda: Weight of the distortion, above 0; a number, or one per image, ``[B]``.
        distortion: ``mse``: the loss is ``lmbda * 255^2 * MSE + bpp`` (Balle et al. 2018); ``ms_ssim``: it is
            ``lmbda * (1 - MS-SSIM) + bpp``, with lambdas some thousand times larger.
    """

    lmbda: float | Tensor
    distortion: DistortionName = "mse"

    @property
    def measure(self) -> Distortion:
        """The distortion that the word stands for."""
        return DISTORTIONS[self.distortion]

    @property
    def weight(self) -> float | Tensor:
        """Factor of the distortion of pixel values in [0, 1]."""
        return self.lmbda * self.measure.scale

    def loss(self, bpp: Tensor, distortion: Tensor) -> Tensor:
        """The Lagrangian of a rate and of the distortion that counts, of pixel values in [0, 1]."""
        return self.weight * distortion + bpp


@dataclass(frozen=True)
class RateDistortion:
    """Rate, distortion and their Lagrangian, one value per image (``[B]`` each).

    Attributes:
        bpp_y: Bits of y per pixel of the true image.
        bpp_z: Bits of z per pixel of the true image.
        mse: Mean squared error of the true pixels, for values in [0, 1].
        loss: See :meth:`Objective.loss`.
    """

    bpp_y: Tensor
    bpp_z: Tensor
    mse: Tensor
    loss: Tensor

    @property
    def bpp(self) -> Tensor:
        """Bits per pixel, ``[B]``."""
        return self.bpp_y + self.bpp_z

    @property
    def psnr_db(self) -> Tensor:
        """PSNR of the real-valued image in dB, ``[B]``; infinite for a perfect image."""
        return -10 * torch.log10(self.mse)


def rate_distortion(
    x: Tensor, x_hat: Tensor, bits: Bits, objective: Objective, true: TruePixels, excess: Tensor | None = None
) -> RateDistortion:
    """Rate and distortion of a batch.

    Args:
        x: Images ``[B, 3, H, W]`` in [0, 1].
        x_hat: Reconstructions, of the same shape.
        bits: Bits of each image.
        objective: Loss that is minimised.
        true: Pixels that count.
        excess: Distortion that the loss has beyond that of ``x_hat``, ``[B]``.

    Raises:
        ValueError: The objective is MS-SSIM and an image is too small for it.
    """
    bpp_y, bpp_z = bits.y / true.count, bits.z / true.count
    mse = mean_squared_error(x, x_hat, true.mask)  # its PSNR is told whatever the objective
    distortion = mse if objective.distortion == "mse" else objective.measure(x, x_hat, true)
    loss = objective.loss(bpp_y + bpp_z, distortion)
    return RateDistortion(bpp_y, bpp_z, mse, loss if excess is None else loss + objective.weight * excess)
