"""What ``import sga`` offers: a codec, a photograph refined into a file, and the file's picture again.

Pictures are uint8 tensors ``[3, H, W]`` in RGB on the CPU, as results and as arguments; arguments may also be paths, PIL images and
uint8 arrays. :func:`sga.to_pil` makes of one what a notebook shows.
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
    """A codec, on the CPU; ``codec.to("cuda")`` is the same on another device.

    Args:
        checkpoint: ``embedded`` (a scale hyperprior for MSE, lambda 0.013, that ships with the package); a file of this project
            (``.safetensors``, or a Lightning checkpoint of its training) or of CompressAI; or ``zoo:ARCHITECTURE/METRIC/QUALITY``,
            such as ``zoo:bmshj2018-hyperprior/mse/4``, downloaded once.

    Raises:
        CheckpointError: The file is missing, damaged, or of an unknown architecture.
    """
    return load_codec(checkpoint if isinstance(checkpoint, str) else Path(checkpoint))


def encode(codec: LoadedCodec, image: ImageLike) -> CodedImage:
    """A photograph in the file of its encoder's latents, not refined: quick, and what :func:`refine` begins with.

    Args:
        codec: Codec of :func:`load`.
        image: Path, PIL image, uint8 array ``[H, W, 3]`` or ``[H, W]``, or uint8 tensor ``[3, H, W]``.

    Raises:
        ImageError: It is no image.
        BitstreamError: It is too large for the format.
    """
    return encode_photograph(codec, to_image(image))[0]


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
    """A photograph refined into a file; ``save`` of the result writes it, and :func:`decode` reads it.

    The same file as that of ``sga encode`` and ``sga refine`` with the same settings. Where a target cannot be reached, the nearest
    file is returned with a warning.

    Args:
        codec: Codec of :func:`load`.
        image: Path, PIL image, uint8 array ``[H, W, 3]`` or ``[H, W]``, or uint8 tensor ``[3, H, W]``.
        preset: Name as for :func:`sga.preset`, or settings that it returned.
        steps: Adam steps in place of the preset's.
        lmbda: Weight of the distortion, above 0, in place of the one that the model was trained with.
        target_bpp: Bits per pixel of the file, reached within 1 % by moving lambda.
        target_psnr: PSNR in dB, reached within 0.05 dB by moving lambda; not together with ``target_bpp``.
        seed: Seed of the noise; the same seed repeats a file to the bit on one machine.
        progress: Bar on a terminal or in a notebook (``True``), nothing (``False``), or ``f(step, steps, loss)``, which is called
            after each hard evaluation with the R-D loss of the best latents so far.

    Raises:
        ImageError: ``image`` is no image.
        BitstreamError: It is too large for the format.
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
        file: Path, or the bytes themselves.
        codec: Codec that the file was written with; by default the embedded one.

    Raises:
        BitstreamError: The file is damaged, foreign, or written with another model.
        OSError: It cannot be read.
    """
    data = bytes(file) if isinstance(file, (bytes, bytearray, memoryview)) else Path(file).read_bytes()
    Bitstream.from_bytes(data)  # refuse a damaged file before a model is loaded
    return decode_image(codec or load(), data)
