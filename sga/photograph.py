"""A photograph to its refined file."""

from __future__ import annotations

from torch import Tensor

from sga.codecs.checkpoint import LoadedCodec
from sga.coding import CodedImage, code_image, code_result
from sga.images import pad, to_float
from sga.rate_distortion import Objective
from sga.reach_target import TargetedRefinement
from sga.refinement.refiner import refine
from sga.refinement.result import RefinementResult
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import Target


def refine_photograph(
    loaded: LoadedCodec, image: Tensor, objective: Objective, settings: RefinerSettings, target: Target | None = None, seed: int = 0
) -> tuple[CodedImage, RefinementResult]:
    """ONE photograph to its refined file, on the codec's device.

    Args:
        loaded: The codec, with its tables.
        image: uint8 ``[3, H, W]``, on the CPU.
        objective: What is minimised; with a target, its lambda is where the search starts.
        settings: How the latents are optimised.
        target: What the file is to be; the nearest file is returned where it cannot be.
        seed: Of the noise.

    Raises:
        BitstreamError, ValueError: As :func:`sga.coding.code_image` and :class:`TargetedRefinement`.
    """
    x = pad(to_float(image), loaded.codec.stride)[None].to(loaded.codec.device)
    if target is None:
        result = refine(loaded.codec, x, [(image.shape[-2], image.shape[-1])], objective, settings, [seed])
        return code_result(loaded, result, image, objective, settings.select)[1], result
    targeted = TargetedRefinement(loaded, objective, settings, target)
    result = targeted.land(x, image, targeted.approach(x, [image], [seed]), seed)
    return code_image(loaded, result.refined, image, objective), result
