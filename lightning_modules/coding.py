"""Latents to a file, the file to an image again, and what the two cost: what is reported is the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from data.images import to_uint8
from lightning_modules.bitstream import decode_image, encode_image
from lightning_modules.codecs import Quantised
from lightning_modules.codecs.checkpoint import LoadedCodec
from lightning_modules.metrics import ms_ssim, psnr_db
from lightning_modules.rate_distortion import Objective
from lightning_modules.refinement_result import RefinementResult
from lightning_modules.rounding import hard_round
from lightning_modules.settings import Select


@dataclass(frozen=True)
class CodedImage:
    """A file and what it decodes to.

    Attributes:
        file: Its bytes.
        image: uint8 ``[3, H, W]``, decoded from ``file``.
        bpp: Bits of the whole file, header included, over the true pixels.
        psnr_db: Of the 8-bit image; ``None`` where it is perfect.
        ms_ssim: Of the 8-bit image; ``None`` where a side is too short for it.
        rd_loss: See :class:`lightning_modules.rate_distortion.Objective`.
    """

    file: bytes
    image: Tensor
    bpp: float
    psnr_db: float | None
    ms_ssim: float | None
    rd_loss: float


def code_image(loaded: LoadedCodec, quantised: Quantised, original: Tensor, objective: Objective) -> CodedImage:
    """Encodes ONE image's hard-rounded latents, decodes the file and measures it.

    Args:
        loaded: The codec, with its tables.
        quantised: Batch of 1.
        original: The image before padding, uint8 ``[3, H, W]``.
        objective: Of the R-D loss.

    Raises:
        BitstreamError: The image is too large for the format.
        ValueError: The objective is MS-SSIM and the image is too small for it.
    """
    height, width = original.shape[-2:]
    file = encode_image(loaded, quantised, height, width)
    image = decode_image(loaded, file)
    bpp = 8 * len(file) / (height * width)
    mse = (original.double() - image.double()).square().mean() / 255**2
    psnr, similarity = psnr_db(original, image), ms_ssim(original, image)
    if similarity is None and objective.distortion == "ms_ssim":
        raise ValueError(f"MS-SSIM is not defined for an image of {width} x {height} pixels")
    return CodedImage(
        file=file,
        image=image,
        bpp=bpp,
        psnr_db=psnr if math.isfinite(psnr) else None,
        ms_ssim=similarity,
        rd_loss=float(objective.loss(mse.new_tensor(bpp), mse, None if similarity is None else mse.new_tensor(similarity))),
    )


def code_photograph(loaded: LoadedCodec, x: Tensor, height: int, width: int, objective: Objective) -> tuple[CodedImage, float]:
    """Encodes ONE image as its encoder has it, not refined; beside it the bits a pixel by the densities.

    Args:
        loaded: The codec, with its tables.
        x: The padded image, ``[1, 3, H', W']`` in [0, 1].
        height: H, before padding.
        width: W, before padding.
        objective: Of the R-D loss.

    Raises:
        BitstreamError, ValueError: As :func:`code_image`.
    """
    with torch.no_grad():
        latents = loaded.codec.analyse(x, loaded.codec.gain_for(objective.lmbda))
        quantised = loaded.codec.quantise(latents, hard_round)
        bpp_estimated = float(loaded.codec.bits(quantised).total) / (height * width)
    original = to_uint8(x[0, :, :height, :width]).cpu()
    return code_image(loaded, quantised, original, objective), bpp_estimated


def code_result(
    loaded: LoadedCodec, result: RefinementResult, original: Tensor, objective: Objective, select: Select
) -> tuple[CodedImage, CodedImage, int]:
    """The base's and the refined file of ONE image's refinement, and the steps after which the latter's latents were reached.

    With ``select`` ``best``, the refined file is the base's where that is better after all: coded bits differ a little from
    estimated ones.
    """
    base, refined = (code_image(loaded, latents, original, objective) for latents in (result.base, result.refined))
    if select == "best" and refined.rd_loss > base.rd_loss:
        return base, base, 0
    return base, refined, int(result.best_step)
