"""What a rate is weighed against: the squared error, or 1 - MS-SSIM; per image, every result ``[B]``.

A distortion is a class and is named by a word in configurations and checkpoints; :data:`DISTORTIONS` has the object of each word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pytorch_msssim import ms_ssim as _ms_ssim
from torch import Tensor

DistortionName = Literal["mse", "ms_ssim"]
"""The word for a distortion."""

MS_SSIM_MIN_SIDE = 161
"""MS-SSIM halves the image four times under an 11 x 11 window: it is not defined where a side is shorter."""

PROBES = 8
"""Random directions for the curvature of MS-SSIM."""

Signs = Callable[[Tensor], Tensor]
"""``signs(like)``: random signs, -1 or 1, of the shape of ``like``."""


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
        """True pixels of a batch ``x`` ``[B, 3, H, W]`` with images of these sizes (``None``: nothing is padded)."""
        whole = (x.shape[-2], x.shape[-1])
        sizes = [whole] * len(x) if sizes is None else sizes
        count = torch.tensor([height * width for height, width in sizes], dtype=torch.float32, device=x.device)
        if all(size == whole for size in sizes):
            return cls(sizes, count, None)
        mask = torch.zeros_like(x[:, :1])
        for row, (height, width) in zip(mask, sizes, strict=True):
            row[:, :height, :width] = 1
        return cls(sizes, count, mask)


class Distortion(ABC):
    """A distance of images, 0 where they are equal.

    Attributes:
        title: Name for people.
        scale: Factor that the convention of lambda puts before it.
        min_side: Shortest side, in pixels, of an image that has this distortion.
    """

    title: str
    scale: float
    min_side: int = 1

    @abstractmethod
    def __call__(self, x: Tensor, x_hat: Tensor, true: TruePixels) -> Tensor:
        """Distortion of each image, ``[B]``, over its true pixels.

        Args:
            x: Images ``[B, 3, H, W]`` in [0, 1].
            x_hat: Reconstructions of the same shape.
            true: Pixels that count.

        Raises:
            ValueError: An image is too small for it.
        """

    @abstractmethod
    def curvature(self, x: Tensor, x_hat: Tensor, true: TruePixels, signs: Signs) -> Tensor:
        """Half the second derivative by each value of ``x_hat``, ``[B, 3, H, W]``, 0 where a pixel does not count.

        Args:
            x, x_hat, true: See :meth:`__call__`.
            signs: Source of random signs, for a distortion that has to estimate it.

        Raises:
            ValueError: An image is too small for it.
        """

    @abstractmethod
    def measured(self, mse: float, ms_ssim: float | None) -> float | None:
        """Distortion of a measured image.

        Args:
            mse: Mean squared error of the 8-bit image, for pixel values in [0, 1].
            ms_ssim: MS-SSIM in [0, 1]; ``None`` where it is not defined.

        Returns:
            ``None`` where it is not defined.
        """


class SquaredError(Distortion):
    """Mean squared error of pixel values in [0, 1]; lambda counts it in units of 255^2 (Balle et al. 2018, CompressAI)."""

    title = "MSE"
    scale = 255.0**2

    def __call__(self, x: Tensor, x_hat: Tensor, true: TruePixels) -> Tensor:
        return mean_squared_error(x, x_hat, true.mask)

    def curvature(self, x: Tensor, x_hat: Tensor, true: TruePixels, signs: Signs) -> Tensor:
        curvature = torch.ones_like(x) / (3 * true.count.view(-1, 1, 1, 1))
        return curvature if true.mask is None else curvature * true.mask

    def measured(self, mse: float, ms_ssim: float | None) -> float:
        return mse


class StructuralDissimilarity(Distortion):
    """1 - MS-SSIM (Wang et al. 2003); lambda counts it as it is, so that lambdas are some thousand times those of the MSE."""

    title = "MS-SSIM"
    scale = 1.0
    min_side = MS_SSIM_MIN_SIDE

    def __call__(self, x: Tensor, x_hat: Tensor, true: TruePixels) -> Tensor:
        return 1 - ms_ssim(x, x_hat, true)

    def curvature(self, x: Tensor, x_hat: Tensor, true: TruePixels, signs: Signs) -> Tensor:
        """Diagonal of the Hessian, estimated from random signs, smoothed and kept above 0."""
        x_hat = x_hat.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(-ms_ssim(x, x_hat, true).sum(), x_hat, create_graph=True)
        curvature = torch.zeros_like(x)
        for _ in range(PROBES):
            probe = signs(x)
            (product,) = torch.autograd.grad(gradient, x_hat, probe, retain_graph=True)
            # MS-SSIM has a kink where contrasts are opposite, with no second derivative.
            curvature += torch.nan_to_num(probe * product, nan=0.0, posinf=0.0, neginf=0.0) / (2 * PROBES)
        mask = torch.ones_like(x[:, :1]) if true.mask is None else true.mask
        near = F.avg_pool2d(mask, 15, 1, 7).clamp(min=1e-6)  # share of true pixels about each
        curvature = (F.avg_pool2d(curvature.mean(1, keepdim=True), 15, 1, 7) / near).clamp(min=0).expand_as(x)
        return curvature if true.mask is None else curvature * true.mask

    def measured(self, mse: float, ms_ssim: float | None) -> float | None:
        return None if ms_ssim is None else 1 - ms_ssim


DISTORTIONS: dict[DistortionName, Distortion] = {"mse": SquaredError(), "ms_ssim": StructuralDissimilarity()}


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
