"""Measurement of the metrics of a coded image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from sga.codecs import Codec
from sga.distortion import MS_SSIM_MIN_SIDE, TruePixels
from sga.distortion import ms_ssim as _ms_ssim

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the luma of BT.601, full range: the matrix of JPEG (JFIF), and the default of WebP, AVIF and HEIC for
photographs, so that a PSNR of luma can be compared with those of classical image codecs."""


@dataclass(frozen=True)
class Coding:
    """A coded image, from which metrics are measured. Unknown attributes are ``None``, and so are the metrics that need them.

    Attributes:
        original: Original image, uint8 ``[3, H, W]``.
        image: Decoded image, uint8 ``[3, H, W]``, on the same device.
        bits: Bits of the file; estimated bits where there is no file.
        codec: Codec that coded the image.
        encode_seconds: Wall time in seconds from latents to the file.
        decode_seconds: Wall time in seconds from the file to ``image``.
    """

    original: Tensor
    image: Tensor
    bits: float
    codec: Codec | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None

    @property
    def bpp(self) -> float:
        """Bits per pixel."""
        return self.bits / (self.original.shape[-2] * self.original.shape[-1])

    @cached_property
    def ms_ssim(self) -> float | None:
        """MS-SSIM as of :func:`ms_ssim`; computed once, since it is slow and two metrics need it."""
        return ms_ssim(self.original, self.image)


def psnr_db(image: Tensor, reconstruction: Tensor) -> float:
    """PSNR in dB of two uint8 images ``[3, H, W]``; infinite where they are equal."""
    return _psnr_db((image.double() - reconstruction.double()).square().mean().item())


def luma_psnr_db(image: Tensor, reconstruction: Tensor) -> float:
    """PSNR in dB of the luma (:data:`LUMA`, not rounded, peak 255) of two uint8 images ``[3, H, W]``; infinite for equal luma."""
    difference = image.double() - reconstruction.double()
    weights = difference.new_tensor(LUMA)[:, None, None]
    return _psnr_db((weights * difference).sum(0).square().mean().item())


def _psnr_db(mse: float) -> float:
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ms_ssim(image: Tensor, reconstruction: Tensor) -> float | None:
    """MS-SSIM of two uint8 images ``[3, H, W]``, in [0, 1]; ``None`` where a side is under 161 pixels."""
    if min(image.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    x = image[None].float()
    return float(_ms_ssim(x, reconstruction[None].float(), TruePixels.of(x), data_range=255.0))


def ms_ssim_in_db(similarity: float | None) -> float | None:
    """MS-SSIM in dB, -10 log10(1 - MS-SSIM); infinite for an MS-SSIM of 1."""
    if similarity is None:
        return None
    return -10 * math.log10(1 - similarity) if similarity < 1 else math.inf
