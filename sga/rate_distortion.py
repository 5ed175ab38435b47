"""The rate-distortion Lagrangian of a codec, written once for training, refinement and files; per image, every result ``[B]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pytorch_msssim import ms_ssim as _ms_ssim
from torch import Tensor

from sga.codecs.base import Bits, Distortion

MS_SSIM_MIN_SIDE = 161
"""MS-SSIM halves the image four times under an 11 x 11 window: it is not defined where a side is shorter."""


@dataclass(frozen=True)
class Objective:
    """The Lagrangian that is minimised, in CompressAI's convention.

    Attributes:
        lmbda: Weight of the distortion, above 0; a number, or one an image, ``[B]``.
        distortion: ``mse``: the loss is ``lmbda * 255^2 * MSE + bpp`` (Balle et al. 2018); ``ms_ssim``: it is
            ``lmbda * (1 - MS-SSIM) + bpp``, with lambdas some thousand times larger.
    """

    lmbda: float | Tensor
    distortion: Distortion = "mse"

    @property
    def weight(self) -> float | Tensor:
        """What a distortion, of pixel values in [0, 1], is multiplied by."""
        return self.lmbda * 255**2 if self.distortion == "mse" else self.lmbda

    def loss(self, bpp: Tensor, mse: Tensor, ms_ssim: Tensor | None) -> Tensor:
        """The Lagrangian of a rate and of the distortion it counts, of pixel values in [0, 1]."""
        if self.distortion == "mse":
            return self.weight * mse + bpp
        assert ms_ssim is not None
        return self.weight * (1 - ms_ssim) + bpp


@dataclass(frozen=True)
class TruePixels:
    """Which pixels of a padded batch belong to its images.

    Attributes:
        sizes: ``(height, width)`` of each image; its pixels are in the upper left corner.
        count: Pixels of each image, ``[B]``, fp32.
        mask: 1 where a pixel is an image's, ``[B, 1, H, W]``; ``None`` where nothing is padded.
    """

    sizes: Sequence[tuple[int, int]]
    count: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, x: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> TruePixels:
        """Those of a batch ``x`` ``[B, 3, H, W]`` with images of these sizes (``None``: nothing is padded)."""
        whole = (x.shape[-2], x.shape[-1])
        sizes = [whole] * len(x) if sizes is None else sizes
        count = torch.tensor([height * width for height, width in sizes], dtype=torch.float32, device=x.device)
        if all(size == whole for size in sizes):
            return cls(sizes, count, None)
        mask = torch.zeros_like(x[:, :1])
        for row, (height, width) in zip(mask, sizes, strict=True):
            row[:, :height, :width] = 1
        return cls(sizes, count, mask)


@dataclass(frozen=True)
class RateDistortion:
    """Rate, distortion and their Lagrangian, one value an image (``[B]`` each).

    Attributes:
        bpp_y: Bits of y a pixel of the true image.
        bpp_z: Bits of z a pixel of the true image.
        mse: Mean squared error of the true pixels, for values in [0, 1].
        loss: See :meth:`Objective.loss`.
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


def rate_distortion(
    x: Tensor, x_hat: Tensor, bits: Bits, objective: Objective, true: TruePixels, excess: Tensor | None = None
) -> RateDistortion:
    """Rate and distortion of a batch.

    Args:
        x: Images ``[B, 3, H, W]`` in [0, 1].
        x_hat: Their reconstructions.
        bits: Bits of each image.
        objective: What is minimised.
        true: The pixels that count.
        excess: Distortion that the loss has beyond that of ``x_hat``, ``[B]``.

    Raises:
        ValueError: The objective is MS-SSIM and an image is too small for it.
    """
    bpp_y, bpp_z = bits.y / true.count, bits.z / true.count
    mse = mean_squared_error(x, x_hat, true.mask)
    similarity = ms_ssim(x, x_hat, true) if objective.distortion == "ms_ssim" else None
    loss = objective.loss(bpp_y + bpp_z, mse, similarity)
    return RateDistortion(bpp_y, bpp_z, mse, loss if excess is None else loss + objective.weight * excess)


def mean_squared_error(x: Tensor, x_hat: Tensor, mask: Tensor | None = None) -> Tensor:
    """MSE of each image ``[B, 3, H, W]``, over the pixels where ``mask`` ``[B, 1, H, W]`` is 1 (``None``: all): ``[B]``."""
    squares = (x_hat - x).square()
    # Not flattened: that would copy, and its gradient would leave channels_last, which slows all that follows.
    if mask is None:
        return squares.mean((1, 2, 3))
    return (squares * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * x.shape[1])


def ms_ssim(x: Tensor, x_hat: Tensor, true: TruePixels, data_range: float = 1.0) -> Tensor:
    """MS-SSIM of the true pixels of each image ``[B, 3, H, W]``, in [0, 1]: ``[B]`` (Wang et al. 2003).

    Raises:
        ValueError: A side is under 161 pixels.
    """
    for height, width in true.sizes:
        if min(height, width) < MS_SSIM_MIN_SIDE:
            raise ValueError(f"MS-SSIM needs sides of at least {MS_SSIM_MIN_SIDE} pixels, here they are {width} x {height}")
    with torch.autocast(x.device.type, enabled=False):
        if true.mask is None:
            return _ms_ssim(x_hat.float(), x.float(), data_range, size_average=False)
        # Cut out: the window must see no padding.
        pairs = zip(x_hat, x, true.sizes, strict=True)
        rows = [
            _ms_ssim(b[None, :, :h, :w].float(), a[None, :, :h, :w].float(), data_range, size_average=False)
            for b, a, (h, w) in pairs
        ]
        return torch.cat(rows)
