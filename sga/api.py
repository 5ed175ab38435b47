"""Functions of ``import sga``: load a codec, refine a photograph into a file, and decode the file.

Pictures are uint8 tensors ``[3, H, W]`` in RGB on the CPU, as results and as arguments; arguments may also be paths, PIL images and
uint8 arrays. :func:`sga.to_pil` converts one to a PIL image, which notebooks show.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from os import PathLike
from pathlib import Path

from torch import Tensor

from sga.bitstream import Bitstream, check_size, decode_image
from sga.codecs.checkpoint import EMBEDDED
from sga.coding import CodedImage
from sga.images import ImageLike, to_image
from sga.loading import LoadedCodec, load_codec
from sga.photograph import RefinedPhotograph, encode_photograph, refine_photograph
from sga.progress import OnStep, listening
from sga.refinement import presets
from sga.refinement.presets import DEFAULT
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import Target


def load(checkpoint: str | PathLike[str] = EMBEDDED) -> LoadedCodec:
    """A codec on the CPU; its method ``to("cuda")`` returns it on another device.

    Args:
        checkpoint: Name or file of the checkpoint: ``embedded`` (a scale hyperprior for MSE at all rates, that ships with the
            package); a file of this project (``.safetensors``, or a Lightning checkpoint of its training) or of CompressAI; or
            ``zoo:ARCHITECTURE/METRIC/QUALITY``, such as ``zoo:bmshj2018-hyperprior/mse/4``, downloaded once.

    Raises:
        CheckpointError: The file is missing, damaged, or of an unknown architecture.
    """
    return load_codec(checkpoint if isinstance(checkpoint, str) else Path(checkpoint))


def encode(codec: LoadedCodec, image: ImageLike, lmbda: float | None = None) -> CodedImage:
    """The file of a photograph's latents as the encoder computes them, without refinement; fast.

    Args:
        codec: Codec of :func:`load`.
        image: Path, PIL image, uint8 array ``[H, W, 3]`` or ``[H, W]``, or uint8 tensor ``[3, H, W]``.
        lmbda: Lambda above 0 whose gain a codec of variable rate takes, by default 0.013; for such a codec alone.

    Raises:
        ImageError: ``image`` is not an image.
        BitstreamError: The image is too large for the format.
        ValueError: The lambda is not above 0, or the codec has one rate.
    """
    if lmbda is not None and not codec.codec.variable_rate:
        raise ValueError("lmbda chooses the rate of a codec of variable rate, and this one has one rate: leave it out, or refine")
    return encode_photograph(codec, to_image(image), lmbda)[0]


def refine(
    codec: LoadedCodec,
    image: ImageLike,
    preset: str | RefinerSettings = DEFAULT,
    steps: int | None = None,
    lmbda: float | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    seed: int = 0,
    progress: bool | OnStep = True,
) -> RefinedPhotograph:
    """The file of a photograph's refined latents; its method ``save`` writes it, and :func:`decode` reads it.

    ``sga encode`` and ``sga refine`` give the same file with the same settings. Where a target cannot be reached, the nearest file
    is returned with a warning.

    Args:
        codec: Codec of :func:`load`.
        image: Path, PIL image, uint8 array ``[H, W, 3]`` or ``[H, W]``, or uint8 tensor ``[3, H, W]``.
        preset: Name as for :func:`sga.preset`, by default ``instant``, or settings that it returned.
        steps: Adam steps in place of the preset's.
        lmbda: Weight of the distortion, above 0, in place of the lambda of the model's training.
        target_bpp: Target bits per pixel of the file, reached within 1 % by moving lambda.
        target_psnr: Target PSNR in dB, reached within 0.05 dB by moving lambda; not together with ``target_bpp``.
        seed: Seed of the noise; on one machine, the same seed gives the same file.
        progress: Bar on a terminal or in a notebook (``True``), nothing (``False``), or ``f(step, steps, loss)``, which is called
            after each hard evaluation with the R-D loss of the best latents so far.

    Raises:
        ImageError: ``image`` is not an image.
        BitstreamError: The image is too large for the format.
        ValueError: A number is out of range, both targets are given, the checkpoint does not say its lambda and none is given, or
            the loss is of MS-SSIM and the image has a side under 161 pixels.
    """
    target = Target.of(target_bpp, target_psnr)
    pixels = to_image(image)
    check_size(pixels.shape[-2], pixels.shape[-1])
    settings = presets.preset(preset, steps) if isinstance(preset, str) else preset
    if steps is not None:
        settings = replace(settings, steps=steps)
    with listening(progress, settings.steps) as listener:
        refined = refine_photograph(codec, pixels, codec.objective(lmbda), settings, target, seed, listener)
    quality = refined.quality
    if target is not None and not target.reached(quality.bpp, quality.psnr_db):
        warnings.warn(target.missed(quality.bpp, quality.psnr_db), stacklevel=2)
    return refined


def decode(file: str | PathLike[str] | bytes, codec: LoadedCodec | None = None) -> Tensor:
    """The picture of a file, uint8 ``[3, H, W]`` on the CPU.

    Args:
        file: Path of the file, or its bytes.
        codec: Codec that the file was written with; by default the embedded one.

    Raises:
        BitstreamError: The file is damaged, of another format, or written with another model.
        OSError: The file cannot be read.
    """
    data = bytes(file) if isinstance(file, (bytes, bytearray, memoryview)) else Path(file).read_bytes()
    Bitstream.from_bytes(data)  # refuse a damaged file before a model is loaded
    return decode_image(codec or load(), data)
