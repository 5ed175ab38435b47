"""A photograph to its refined file: the one way, for the commands, for notebooks and for a Trainer's ``predict_step``.

image -> pad -> analyse -> refine -> round hard -> entropy coder -> file -> decoder -> 8-bit image -> Quality
"""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sga.bitstream import check_size
from sga.coding import CodedImage, code_image
from sga.files import write_atomically
from sga.images import pad, to_float
from sga.loading import LoadedCodec
from sga.quality import Quality
from sga.rate_distortion import Objective
from sga.reach_target import TargetedRefinement
from sga.refinement.refiner import Listener, refine
from sga.refinement.result import Progress, RefinementResult
from sga.refinement.rounding import hard_round
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import FixedLambda, Target

BatchListener = Callable[[Sequence[int], Progress], None]
"""``listener(indices, progress)``: a :data:`sga.refinement.refiner.Listener` that also receives the indices of the images."""


@dataclass(frozen=True)
class RefinedPhotograph:
    """A photograph and its two files, on the CPU.

    Attributes:
        original: Pixels, uint8 ``[3, H, W]``.
        base: File of the unrefined latents.
        refined: File of the refined latents; the base's where that is better after all, unless ``select`` is ``last``.
        objective: Loss by which the two compare; with a target, its lambda is the one that the image ended at.
        bpp_estimated: Bits per pixel of the refined latents by the densities.
        best_step: Steps after which the written latents were reached; 0 for the base.
        curves: Method's own loss and rates at each step, ``[steps, len(CURVES)]``; see :data:`sga.refinement.result.CURVES`.
        evaluations: True loss, rate and PSNR, ``[n, len(EVALUATED)]``; see :data:`sga.refinement.result.EVALUATED`.
        evaluated_steps: Steps done before each of the n evaluations.
        seconds: Wall time of the refinement, without coding; of a batch, the image's share.
    """

    original: Tensor
    base: CodedImage
    refined: CodedImage
    objective: Objective
    bpp_estimated: float
    best_step: int
    curves: Tensor
    evaluations: Tensor
    evaluated_steps: list[int]
    seconds: float

    @property
    def file(self) -> bytes:
        """Bytes of the refined file."""
        return self.refined.file

    @property
    def image(self) -> Tensor:
        """Picture that the refined file decodes to, uint8 ``[3, H, W]``."""
        return self.refined.image

    @property
    def quality(self) -> Quality:
        """Measured numbers of the refined file."""
        return self.refined.quality

    def save(self, path: str | Path) -> None:
        """Writes the refined file: whole, or not at all.

        Raises:
            OSError: It cannot be written.
        """
        write_atomically(Path(path), self.file)


Outcome = RefinedPhotograph | Exception
"""A photograph with its files, or why there are none."""


def refine_photograph(
    loaded: LoadedCodec,
    image: Tensor,
    objective: Objective,
    settings: RefinerSettings,
    target: Target | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> RefinedPhotograph:
    """ONE photograph refined and coded, on the codec's device.

    Args:
        loaded: Codec with its tables.
        image: Pixels, uint8 ``[3, H, W]``, on the CPU.
        objective: Loss that is minimised; with a target, its lambda is where the search starts.
        settings: How the latents are optimised.
        target: What the file is to be; the nearest file is returned where it cannot be.
        seed: Seed of the noise; see :func:`seed_of`.
        listener: Called after each hard evaluation.

    Raises:
        BitstreamError: The image is too large for the format.
        ValueError: The objective is MS-SSIM and the image is too small for it, the refinement diverged, or a target is given
            without a step.
    """
    listen = None if listener is None else (lambda _, progress: listener(progress))
    (outcome,) = _refine_batch(loaded, [image], [0], objective, settings, target, seed, listen)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def refine_photographs(
    loaded: LoadedCodec,
    images: Sequence[Tensor],
    objective: Objective,
    settings: RefinerSettings,
    target: Target | None = None,
    seed: int = 0,
    listener: BatchListener | None = None,
) -> list[Outcome]:
    """Photographs of one padded size refined together; in place of one that fails, the reason.

    A photograph's file is that of :func:`refine_photograph`, but for float noise. Trouble with one of them, or with the memory for
    all, leaves the others alone: they are refined again one by one.

    Args:
        loaded, objective, settings, target, seed: See :func:`refine_photograph`.
        images: Pixels, uint8 ``[3, h, w]`` each.
        listener: Called after each hard evaluation.
    """
    try:
        return _refine_batch(loaded, images, range(len(images)), objective, settings, target, seed, listener)
    except Exception as error:
        if len(images) == 1:
            return [_released(error)]
    outcomes: list[Outcome] = []
    for i, image in enumerate(images):
        try:
            outcomes += _refine_batch(loaded, [image], [i], objective, settings, target, seed, listener)
        except Exception as error:
            outcomes.append(_released(error))
    return outcomes


def _released(error: Exception) -> Exception:
    """The error without the tensors of the frames that it came through, whose memory the next images need."""
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return error


def encode_photograph(loaded: LoadedCodec, image: Tensor, lmbda: float | None = None) -> tuple[CodedImage, float]:
    """The file of ONE photograph's latents as the encoder has them, not refined, and its bits per pixel by the densities.

    Args:
        loaded: Codec with its tables.
        image: Pixels, uint8 ``[3, H, W]``.
        lmbda: Lambda that the gain of a codec of variable rate suits; by default the checkpoint's.

    Raises:
        BitstreamError: The image is too large for the format.
    """
    height, width = image.shape[-2:]
    check_size(height, width)
    x = pad(to_float(image.to(loaded.device)), loaded.codec.stride)[None]
    with torch.no_grad():
        gain = loaded.codec.gain_for(loaded.objective(lmbda).lmbda) if loaded.codec.variable_rate else None
        quantised = loaded.codec.quantise(loaded.codec.analyse(x, gain), hard_round, hard_round)
        bpp_estimated = float(loaded.codec.bits(quantised).total) / (height * width)
    return code_image(loaded, quantised, image.cpu()), bpp_estimated


def seed_of(image: Tensor, seed: int) -> int:
    """The seed of an image's noise: it depends on the pixels and on ``seed`` alone.

    Neither the name of the image, nor its batch, rank or place in a set, nor the command that asks makes a difference.

    Args:
        image: Pixels, uint8 ``[3, H, W]``, on the CPU.
        seed: Seed of the run.
    """
    return zlib.crc32(image.contiguous().numpy().data, zlib.crc32(str(seed).encode()))


def _refine_batch(
    loaded: LoadedCodec,
    images: Sequence[Tensor],
    indices: Sequence[int],
    objective: Objective,
    settings: RefinerSettings,
    target: Target | None,
    seed: int,
    listener: BatchListener | None,
) -> list[Outcome]:
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    for height, width in sizes:
        check_size(height, width)
    seeds = [seed_of(image, seed) for image in images]
    listen = None if listener is None else (lambda progress: listener(indices, progress))
    targeted = None if target is None else TargetedRefinement(loaded, objective, settings, target)
    # Not in the arithmetic of a caller's autocast, and with gradients also where a caller has none, as a Trainer that predicts.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(loaded.device.type, enabled=False):
        x = torch.stack([pad(to_float(image), loaded.codec.stride) for image in images]).to(loaded.device)
        if targeted is None:
            result = refine(loaded.codec, x, sizes, FixedLambda(objective, settings.select), settings, seeds, listen)
        else:
            result = targeted.begin(x, images, seeds, listen)
        outcomes: list[Outcome] = []
        for i, image in enumerate(images):
            one, final, may_fall_back = result.image(i), objective, settings.select == "best"
            try:
                if targeted is not None:
                    one = targeted.reach(x[i : i + 1], image, one, seeds[i])
                    final, may_fall_back = replace(objective, lmbda=float(one.lmbda)), False  # a better loss is no nearer file
                outcomes.append(_coded(loaded, image, one, final, may_fall_back))
            except Exception as error:
                outcomes.append(error)
        return outcomes


def _coded(
    loaded: LoadedCodec, original: Tensor, result: RefinementResult, objective: Objective, may_fall_back: bool
) -> RefinedPhotograph:
    """Both files of ONE image's refinement.

    With ``may_fall_back``, the refined file is the base's where that is better after all: coded bits differ a little from
    estimated ones.
    """
    result.check()
    base, refined = (code_image(loaded, latents, original) for latents in (result.base, result.refined))
    best_step = int(result.best_step)
    before, after = base.quality.loss(objective), refined.quality.loss(objective)
    if before is None or after is None:
        height, width = original.shape[-2:]
        raise ValueError(f"{objective.measure.title} is not defined for an image of {width} x {height} pixels")
    if may_fall_back and after > before:
        refined, best_step = base, 0
    return RefinedPhotograph(
        original=original,
        base=base,
        refined=refined,
        objective=objective,
        bpp_estimated=float(result.estimated_bpp(best_step)),
        best_step=best_step,
        curves=result.curves[..., 0],
        evaluations=result.evaluations[..., 0],
        evaluated_steps=result.evaluated_steps,
        seconds=result.seconds,
    )
