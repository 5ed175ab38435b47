"""``predict_step`` around :mod:`sga.photograph`: a Trainer gives devices, sharding of the images and callbacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from data.refinement_data import RefinementBatch
from sga.checks import require_positive
from sga.codecs.checkpoint import EMBEDDED
from sga.distortion import DistortionName
from sga.loading import load_codec
from sga.photograph import RefinedPhotograph, refine_photographs
from sga.reach_target import TargetedRefinement
from sga.refinement.result import Progress
from sga.refinement.settings import RefinerSettings
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
        checkpoint: Codec: a file or ``zoo:ARCHITECTURE/METRIC/QUALITY``.
        lmbda: Weight of the distortion; by default the one of the checkpoint's training. With a target, where its search starts.
        target_bpp: Bits per pixel that every file is to have, within 1 %, header included: lambda moves until it has.
        target_psnr: PSNR in dB that every file is to decode to, within 0.05 dB, in the same way.
        distortion: ``mse`` or ``ms_ssim``; by default the one of the checkpoint's training.
        seed: Seed of the noise; an image's depends on it and on the image's pixels alone.
        settings: How latents are optimised: the fields of :class:`sga.refinement.settings.RefinerSettings`.

    Raises:
        ValueError: A number is out of range, or the checkpoint does not say its lambda and none is given.
        CheckpointError: The checkpoint cannot be used.
    """

    def __init__(
        self,
        checkpoint: str = EMBEDDED,
        lmbda: float | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        distortion: DistortionName | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.settings = RefinerSettings(**settings)
        if lmbda is not None:
            require_positive(**{"model.lmbda": lmbda})
        self.loaded = load_codec(checkpoint)
        try:
            self.objective = self.loaded.objective(lmbda, distortion)
        except ValueError as error:
            raise ValueError(f"{checkpoint}: {error}; --model.lmbda LAMBDA") from error
        self.codec = self.loaded.codec
        self.seed = seed
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

        outcomes = refine_photographs(self.loaded, batch.originals, self.objective, self.settings, self.target, self.seed, listener)
        images = []
        for file, outcome in zip(batch.files, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self.failures[file.name] = _reason(outcome)
                continue
            if not torch.isfinite(outcome.curves[:, 0]).all():
                kept = "; the best latents of before are kept" if self.target is not None or self.settings.select == "best" else ""
                rank_zero_warn(f"{file.name}: the loss was not finite at some steps{kept}")
            images.append(RefinedImage(file.name, file.sha256(), outcome))
        return images


def _reason(error: Exception) -> str:
    """Why an image failed, for its line; what nobody expects leaves its traceback too."""
    if isinstance(error, ValueError):  # an image that cannot be refined, such as one too small for MS-SSIM
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"
