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
"""Least distance, in symbols, that a latent can move between two changes of lambda."""

FAR = 3.0
"""Error, in tolerances, above which latents that have settled would not reach the target."""

GAINS_TRIED, SLOPE_OF_GAINS = 4, 0.55
"""Number of gains of a variable-rate codec that are tried before the refinement, and the d log(bpp) / d log(lambda) assumed between
them: that of CompressAI's eight published hyperpriors."""

RATE_LEFT, DB_WON = 0.96, 0.2
"""What a refinement at the lambda of the gain leaves of the bits, and the PSNR that it adds, both a little less than the means over
Kodak and CompressAI's eight lambdas with ``instant`` (0.94 and 0.5 dB). The gain is chosen for the file after the refinement, as no
step changes it; one that is too fine loses less than one that is too coarse, which only a large lambda makes up for."""

CONTINUATION = 10
"""Adam steps between two files, after the first refinement."""


def extra_steps(steps: int) -> int:
    """Largest number of steps for an image after its refinement of ``steps`` steps."""
    return max(100, steps // 2)


@dataclass(frozen=True)
class TargetedRefinement:
    """Refinement to a target: :meth:`begin` refines a batch, then :meth:`reach` brings each of its images to the target.

    Attributes:
        loaded: Codec with its tables.
        objective: Loss that is minimised; the search starts at its lambda.
        settings: Settings of the refinement, of at least one step. Their ``select`` is not used: the target selects the latents.
        target: Bits per pixel or PSNR that every file should have.

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
        """Result of a refinement in which the lambda of each image moves towards the target.

        Args:
            x: Padded images ``[B, 3, H, W]`` in [0, 1], fp32, on the codec's device.
            originals: Images before padding, uint8 ``[3, h, w]``.
            seeds: Seed of the noise of each image.
            listener: Function that is called after each hard evaluation; see :data:`sga.refinement.refiner.Listener`.

        Raises:
            ValueError: See :func:`sga.refinement.refiner.refine`.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in originals]
        codec = self.loaded.codec
        objective, base = self._start(x, sizes)
        with torch.no_grad():
            bits = codec.bits(base).total
        coded = [len(encode_image(self.loaded, base.image(i), *shape)) for i, shape in enumerate(sizes)]
        controller = LambdaController(self.target, objective, _file_size(coded, bits, sizes))
        settings = self.settings
        # Lambda must wait for the latents to follow: between two evaluations they can move by TRAVEL at least.
        every = max(settings.steps // 20, math.ceil(TRAVEL / settings.learning_rate))
        settings = replace(settings, evaluate_every=min(settings.evaluate_every, every), select="best")
        return refine(codec, x, sizes, controller, settings, seeds, listener)

    def reach(self, x: Tensor, original: Tensor, begun: RefinementResult, seed: int) -> RefinementResult:
        """Result of ONE image, refined further until its real file is inside the tolerance.

        Lambda is pushed further and further beyond the value that the error asks for. Where the file is not inside the tolerance
        after :func:`extra_steps`, the result has the latents with the nearest file.

        Args:
            x: Padded image ``[1, 3, H, W]`` in [0, 1], fp32, on the codec's device.
            original: Image before padding, uint8 ``[3, h, w]``.
            begun: Result of :meth:`begin` for this image.
            seed: Seed of the image's noise.

        Returns:
            The result, a batch of 1, with the curves of all that was tried.

        Raises:
            BitstreamError, ValueError: See :func:`sga.coding.code_image`.
        """
        shape = (original.shape[-2], original.shape[-1])
        # With a variable-rate codec, lambda began at the value whose gain nearly reaches the target.
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
            if error * last_error < 0:  # it went too far: the right lambda is between the two
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
        """The objective at the start, and the encoder's latents with the gain of its lambda, rounded hard.

        With a variable-rate codec, the lambda of each image is the one whose gain will nearly reach the target after the steps.
        """
        codec, true = self.loaded.codec, TruePixels.of(x, sizes)
        latents = codec.analyse(x, codec.gain_for(self.objective.lmbda))
        base = codec.quantise(latents, hard_round, hard_round)
        if not codec.variable_rate:
            return self.objective, base
        objective = replace(self.objective, lmbda=true.count.new_full((len(x),), float(self.objective.lmbda)))
        for _ in range(GAINS_TRIED):
            x_hat = codec.synthesise(codec.dequantise(base)).clamp(0, 1)
            found = rate_distortion(x, x_hat, codec.bits(base), objective, true)
            error = self.target.error(RATE_LEFT * found.bpp, found.psnr_db + DB_WON).clamp(-LIMIT, LIMIT)
            lmbda = (torch.as_tensor(objective.lmbda).log() + error / SLOPE_OF_GAINS).exp()
            objective = replace(objective, lmbda=lmbda.clamp(*codec.lmbdas))
            gain = codec.gain_for(objective.lmbda)
            assert gain is not None
            base = codec.quantise(latents.at(gain), hard_round, hard_round)
        return objective, base

    def _continuation(self, steps: int, far: bool) -> RefinerSettings:
        """Settings of the next steps: those of the refinement's end, with a learning rate that still moves the latents.

        Where the file is ``far`` from the target, they are those of the middle of the refinement.
        """
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
    """Relation of real to estimated sizes, from the bytes of files and the bits ``[B]`` by the densities."""
    header = 8 * MAX_OVERHEAD_BYTES
    coded = torch.tensor(files, dtype=torch.float32, device=bits.device) * 8 - header
    pixels = torch.tensor([height * width for height, width in sizes], dtype=torch.float32, device=bits.device)
    return FileSize(ratio=coded.clamp(min=1) / bits.clamp(min=1), overhead_bpp=header / pixels)
