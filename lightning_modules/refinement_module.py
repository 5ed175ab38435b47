"""``predict_step`` around :mod:`sga.photograph`: a Trainer gives devices, sharding of the images and callbacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from data.refinement_data import RefinementBatch
from sga.checks import require_positive
from sga.codecs.checkpoint import EMBEDDED, load_codec
from sga.distortion import DistortionName
from sga.photograph import RefinedPhotograph, refine_photographs
from sga.reach_target import TargetedRefinement
from sga.refinement.relaxation import Method
from sga.refinement.result import Progress
from sga.refinement.schedules import Constant, Schedule
from sga.refinement.settings import Precision, RefinerSettings, Select, step_dtype
from sga.refinement.target import Target

NamedListener = Callable[[Sequence[str], Progress], None]
"""``listener(names, progress)``: a :data:`sga.refinement.refiner.Listener` that hears which images are meant."""


@dataclass(frozen=True)
class RefinedImage:
    """An image of the job and what became of it.

    Attributes:
        name: Name of the image in the job.
        source: SHA-256 of the image's file.
        photograph: Its files, curves and numbers.
    """

    name: str
    source: str
    photograph: RefinedPhotograph


class RefinementModule(pl.LightningModule):
    """Refines the latents of images under a frozen codec and encodes them.

    Args:
        rounding: Method: the relaxation of rounding.
        temperature: tau at each step.
        checkpoint: Codec: a file or ``zoo:ARCHITECTURE/METRIC/QUALITY``.
        lmbda: Weight of the distortion; by default the one of the checkpoint's training. With a target, where its search starts.
        target_bpp: Bits per pixel that every file is to have, within 1 %, header included: lambda moves until it has.
        target_psnr: PSNR in dB that every file is to decode to, within 0.05 dB, in the same way.
        distortion: ``mse`` or ``ms_ssim``; by default the one of the checkpoint's training.
        steps: Adam steps; 0 writes the encoder's latents.
        adapt_prior: Let each file tell the decoder about the prior of its image, in some 50 bytes, where that pays and there are
            steps. CompressAI does not read such files.
        learning_rate: Learning rate of y.
        learning_rate_z: Learning rate of z; by default that of y.
        learning_rate_factor: Multiplies both rates at each step.
        betas: Decays of Adam's means of the gradient and of its square.
        evaluate_every: Steps between two hard evaluations.
        select: ``best`` of the hard evaluations (never worse than the unrefined image) or the ``last`` latents.
        precision: Arithmetic of the steps: ``bf16``, ``fp32``, or ``auto``: bf16 where the processor multiplies in it. Evaluations
            and files are in fp32.
        seed: Seed of the noise; an image's depends on it and on the image's pixels alone.

    Raises:
        ValueError: A number is out of range, or the checkpoint does not say its lambda and none is given.
        CheckpointError: The checkpoint cannot be used.
    """

    def __init__(
        self,
        rounding: Method,
        temperature: Schedule,
        checkpoint: str = EMBEDDED,
        lmbda: float | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        distortion: DistortionName | None = None,
        steps: int = 500,
        adapt_prior: bool = False,
        learning_rate: float = 5e-3,
        learning_rate_z: float | None = None,
        learning_rate_factor: Schedule = Constant(),
        betas: tuple[float, float] = (0.9, 0.999),
        evaluate_every: int = 50,
        select: Select = "best",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = RefinerSettings(
            rounding=rounding,
            temperature=temperature,
            steps=steps,
            adapt_prior=adapt_prior,
            learning_rate=learning_rate,
            learning_rate_z=learning_rate_z,
            learning_rate_factor=learning_rate_factor,
            betas=betas,
            evaluate_every=evaluate_every,
            select=select,
        )
        if lmbda is not None:
            require_positive(**{"model.lmbda": lmbda})
        self.loaded = load_codec(checkpoint)
        try:
            self.objective = self.loaded.objective(lmbda, distortion)
        except ValueError as error:
            raise ValueError(f"{checkpoint}: {error}; --model.lmbda LAMBDA") from error
        self.codec = self.loaded.codec
        self.precision, self.seed = precision, seed
        self.target = Target.of(target_bpp, target_psnr)
        if self.target is not None:  # refuses what cannot reach it, before any work
            TargetedRefinement(self.loaded, self.objective, self.settings, self.target)
        self.failures: dict[str, str] = {}
        self.listeners: list[NamedListener] = []

    def predict_step(self, batch: RefinementBatch, batch_idx: int) -> list[RefinedImage]:
        """Refines and encodes a batch; an image that fails goes into :attr:`failures` and the job goes on."""
        self.failures.update(batch.failures)
        if not batch.files:
            return []
        names = [file.name for file in batch.files]

        def listener(indices: Sequence[int], progress: Progress) -> None:
            for listen in self.listeners:
                listen([names[i] for i in indices], progress)

        settings = replace(self.settings, dtype=step_dtype(self.precision, self.device))
        outcomes = refine_photographs(self.loaded, batch.originals, self.objective, settings, self.target, self.seed, listener)
        images = []
        for file, outcome in zip(batch.files, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self.failures[file.name] = _reason(outcome)
                continue
            if not torch.isfinite(outcome.curves[:, 0]).all():
                kept = "; the best latents of before are kept" if self.target is not None or settings.select == "best" else ""
                rank_zero_warn(f"{file.name}: the loss was not finite at some steps{kept}")
            images.append(RefinedImage(file.name, file.sha256(), outcome))
        return images


def _reason(error: Exception) -> str:
    """Why an image failed, for its line; what nobody expects leaves its traceback too."""
    if isinstance(error, ValueError):  # an image that cannot be refined, such as one too small for MS-SSIM
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"
