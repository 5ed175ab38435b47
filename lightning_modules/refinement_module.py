"""Lightning module around :mod:`sga.photograph`: a Trainer adds devices, sharding of the images and callbacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from data.refinement_data import RefinementBatch
from sga.checks import require_positive
from sga.cli import out_of_memory
from sga.codecs.checkpoint import EMBEDDED
from sga.distortion import DistortionName
from sga.loading import load_codec
from sga.photograph import RefinedPhotograph, refine_photographs
from sga.reach_target import TargetedRefinement
from sga.refinement.result import Progress
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import Target

NamedListener = Callable[[Sequence[str], Progress], None]
"""``listener(names, progress)``: a :data:`sga.refinement.refiner.Listener` that also receives the names of the images."""


@dataclass(frozen=True)
class RefinedImage:
    """A refined image of a job.

    Attributes:
        name: Name of the image in the job.
        source: SHA-256 of the image's file, in hexadecimal digits.
        photograph: Files, curves and metrics of the image.
    """

    name: str
    source: str
    photograph: RefinedPhotograph


class RefinementModule(pl.LightningModule):
    """Refines the latents of images under a frozen codec and encodes them.

    Args:
        checkpoint: Checkpoint of the codec: a file, ``embedded``, or ``zoo:ARCHITECTURE/METRIC/QUALITY``.
        lmbda: Weight of the distortion; by default the lambda of the checkpoint's training. With a target, the search starts at it.
        target_bpp: Target bits per pixel of every file, header included, reached within 1 % by moving lambda.
        target_psnr: Target PSNR in dB of every file, reached within 0.05 dB by moving lambda; not together with ``target_bpp``.
        distortion: ``mse`` or ``ms_ssim``; by default the distortion of the checkpoint's training.
        seed: Seed of the noise; the noise of an image depends on it and on the image's pixels alone.
        settings: Fields of :class:`sga.refinement.settings.RefinerSettings`.

    Raises:
        ValueError: A number is out of range, both targets are given, or the checkpoint does not say its lambda and none is given.
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
        if self.target is not None:  # refuses settings that cannot reach a target, before any work
            TargetedRefinement(self.loaded, self.objective, self.settings, self.target)
        self.failures: dict[str, str] = {}
        self.listeners: list[NamedListener] = []
        self.take: Callable[[str], bool] = lambda name: True

    def on_before_batch_transfer(self, batch: RefinementBatch, dataloader_idx: int) -> RefinementBatch:
        """The batch without the images that :attr:`take` leaves to other processes."""
        taken = [self.take(file.name) for file in batch.files]
        return RefinementBatch(
            [file for file, own in zip(batch.files, taken, strict=True) if own],
            [original for original, own in zip(batch.originals, taken, strict=True) if own],
            batch.failures,
        )

    def predict_step(self, batch: RefinementBatch, batch_idx: int) -> list[RefinedImage]:
        """The refined images of a batch. The reason of one that fails goes into :attr:`failures`, and the job continues."""
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
            images.append(RefinedImage(file.name, file.sha256(), outcome))
        return images


def _reason(error: Exception) -> str:
    """The reason why an image failed, in one line; an unexpected error also prints its traceback."""
    if isinstance(error, ValueError):  # an image that cannot be refined, such as one too small for MS-SSIM
        return str(error)
    if reason := out_of_memory(error):
        return f"{reason} (--trainer.accelerator, --data.batch_size)"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"
