"""Refinement to a target: one refinement in which lambda moves, then short ones until the real file is inside the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sga.bitstream import MAX_OVERHEAD_BYTES, encode_image
from sga.codecs import Quantised
from sga.coding import code_image
from sga.distortion import TruePixels
from sga.loading import LoadedCodec
from sga.rate_distortion import Objective, rate_distortion
from sga.refinement.refiner import Listener, refine
from sga.refinement.result import RefinementResult
from sga.refinement.rounding import hard_round
from sga.refinement.schedules import Constant
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import LIMIT, SLOPE, FileSize, LambdaController, Target

TRAVEL = 0.1
"""How far a latent can move between two steps of lambda at the least, in symbols."""

FAR = 3.0
"""An error of so many tolerances is large: latents that have settled would not get there."""

GAINS_TRIED, SLOPE_OF_GAINS = 4, 0.55
"""Gains of a codec of variable rate that are tried before the refinement, and d log(bpp) / d log(lambda) from one to another: 0.55
over CompressAI's eight published hyperpriors."""

CONTINUATION = 10
"""Steps between two files, after the refinement."""


def extra_steps(steps: int) -> int:
    """The most steps that an image may take after its refinement of ``steps``."""
    return max(100, steps // 2)


@dataclass(frozen=True)
class TargetedRefinement:
    """Refinement so that files are what is asked for: :meth:`begin` with a batch, then :meth:`reach` the target with each
    of its images.

    Attributes:
        loaded: Codec with its tables.
        objective: Loss; its lambda is the first.
        settings: Settings of the refinement, of at least one step. What they ``select`` counts for nothing: the target does it.
        target: What is asked for.

    Raises:
        ValueError: There are no steps.
    """

    loaded: LoadedCodec
    objective: Objective
    settings: RefinerSettings
    target: Target

    def __post_init__(self) -> None:
        if self.settings.steps < 1:
            raise ValueError("a target needs at least one step of refinement")

    def begin(
        self, x: Tensor, originals: Sequence[Tensor], seeds: Sequence[int], listener: Listener | None = None
    ) -> RefinementResult:
        """Refines images while the lambda of each moves to where it belongs.

        Args:
            x: Padded images ``[B, 3, H, W]`` in [0, 1], fp32, on the codec's device.
            originals: The images before padding, uint8 ``[3, h, w]``.
            seeds: Seed of the noise of each image.
            listener: See :data:`sga.refinement.refiner.Listener`.

        Raises:
            ValueError: As :func:`sga.refinement.refiner.refine`.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in originals]
        codec = self.loaded.codec
        objective, base = self._start(x, sizes)
        with torch.no_grad():
            bits = codec.bits(base).total
        coded = [len(encode_image(self.loaded, base.image(i), *shape)) for i, shape in enumerate(sizes)]
        controller = LambdaController(self.target, objective, _file_size(coded, bits, sizes))
        settings = self.settings
        # Lambda must wait for the latents: between two evaluations they can move by TRAVEL at least.
        every = max(settings.steps // 20, math.ceil(TRAVEL / settings.learning_rate))
        settings = replace(settings, evaluate_every=min(settings.evaluate_every, every), select="best")
        return refine(codec, x, sizes, controller, settings, seeds, listener)

    def reach(self, x: Tensor, original: Tensor, begun: RefinementResult, seed: int) -> RefinementResult:
        """Goes on with ONE image, with a lambda ever further beyond the one that its error asks for, until its
        real file is inside the tolerance; the nearest latents where it is not after :func:`extra_steps`.

        Args:
            x: The padded image, ``[1, 3, H, W]``.
            original: Before padding, uint8 ``[3, h, w]``.
            begun: What :meth:`begin` returned, of this image.
            seed: Seed of the image's noise.

        Returns:
            A batch of 1, with the curves of all that was tried.

        Raises:
            BitstreamError, ValueError: As :func:`sga.coding.code_image`.
        """
        shape = (original.shape[-2], original.shape[-1])
        # Of a codec of variable rate, lambda began where its gain suits the target.
        first = math.log(float(begun.lmbda if self.loaded.codec.variable_rate else self.objective.lmbda))
        result = nearest = begun
        lmbda, least, left = math.log(float(result.lmbda)), math.inf, extra_steps(self.settings.steps)
        rest, push, last_error = lmbda, 1.0, 0.0
        while True:
            coded = code_image(self.loaded, result.refined, original, ("bpp", "psnr_db"))
            error = self.target.error_of_file(coded.quality.bpp, coded.quality.psnr_db)
            if abs(error) < least:
                nearest, least = result, abs(error)
            if least <= self.target.tolerance or left == 0:
                break
            if error * last_error < 0:  # it went too far: where lambda belongs is between
                rest, push = (rest + lmbda) / 2, 1.0
            push, last_error = 2 * push, error
            lmbda = min(first + LIMIT, max(first - LIMIT, rest + push * max(-LIMIT, min(LIMIT, error)) / SLOPE))
            bits = result.estimated_bpp(int(result.best_step)).to(result.lmbda.device) * (shape[0] * shape[1])
            size = _file_size([len(coded.file)], bits, [shape])
            controller = LambdaController(self.target, replace(self.objective, lmbda=math.exp(lmbda)), size, moving=0)
            settings = self._continuation(min(CONTINUATION, left), far=abs(error) > FAR * self.target.tolerance)
            left -= settings.steps
            seeds = [seed + 1 + left]
            more = refine(self.loaded.codec, x, [shape], controller, settings, seeds, start=result.latents)
            result = result.followed_by(more)
        return result.selecting(nearest)

    @torch.no_grad()
    def _start(self, x: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Objective, Quantised]:
        """The first loss, and the encoder's latents with the gain that suits it, rounded hard.

        Of a codec of variable rate, the lambda of each image is the one whose gain nearly reaches the target without a step.
        """
        codec, true = self.loaded.codec, TruePixels.of(x, sizes)
        base = codec.quantise(codec.analyse(x, codec.gain_for(self.objective.lmbda)), hard_round, hard_round)
        if not codec.variable_rate:
            return self.objective, base
        objective = replace(self.objective, lmbda=true.count.new_full((len(x),), float(self.objective.lmbda)))
        for _ in range(GAINS_TRIED):
            x_hat = codec.synthesise(codec.dequantise(base)).clamp(0, 1)
            found = rate_distortion(x, x_hat, codec.bits(base), objective, true)
            error = self.target.error(found.bpp, found.psnr_db).clamp(-LIMIT, LIMIT)
            lmbda = (torch.as_tensor(objective.lmbda).log() + error / SLOPE_OF_GAINS).exp()
            objective = replace(objective, lmbda=lmbda.clamp(*codec.lmbdas))
            base = codec.quantise(codec.analyse(x, codec.gain_for(objective.lmbda)), hard_round, hard_round)
        return objective, base

    def _continuation(self, steps: int, far: bool) -> RefinerSettings:
        """As the refinement ended, but for a learning rate that still moves the latents; as it was halfway, where the file is
        far from the target."""
        settings, whole = self.settings, self.settings.steps
        tau_at, rate_at = (whole // 2, whole // 2) if far else (whole - 1, 3 * whole // 4)
        return replace(
            settings,
            rounding=settings.rounding.resting_at(tau_at, whole),
            steps=steps,
            temperature=Constant(settings.temperature(tau_at, whole)),
            learning_rate_factor=Constant(settings.learning_rate_factor(rate_at, whole)),
            evaluate_every=2,
            select="best",
        )


def _file_size(files: Sequence[int], bits: Tensor, sizes: Sequence[tuple[int, int]]) -> FileSize:
    """From the bytes of files and the bits that the densities estimate of them, ``[B]``."""
    header = 8 * MAX_OVERHEAD_BYTES
    coded = torch.tensor(files, dtype=torch.float32, device=bits.device) * 8 - header
    pixels = torch.tensor([height * width for height, width in sizes], dtype=torch.float32, device=bits.device)
    return FileSize(ratio=coded.clamp(min=1) / bits.clamp(min=1), overhead_bpp=header / pixels)
