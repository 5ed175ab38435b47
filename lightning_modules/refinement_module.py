"""``predict_step`` around the refiner: a Trainer gives devices, sharding of the images and callbacks, and stays out of the loop."""

from __future__ import annotations

import math
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from data.refinement_data import ImageFile, RefinementBatch
from sga.bitstream import check_size
from sga.codecs import Distortion
from sga.codecs.checkpoint import EMBEDDED, load_codec
from sga.coding import CodedImage, code_result
from sga.rate_distortion import Objective
from sga.reach_target import TargetedRefinement
from sga.refinement.refiner import refine
from sga.refinement.result import Progress, RefinementResult
from sga.refinement.rounding import Rounding
from sga.refinement.schedules import Constant, Schedule
from sga.refinement.settings import Precision, RefinerSettings, Select, method_name, step_dtype
from sga.refinement.target import Target

BatchListener = Callable[[Sequence[str], Progress], None]
"""``listener(names, progress)``: a :data:`sga.refinement.refiner.Listener` that is told which images are meant."""


@dataclass(frozen=True)
class RefinedImage:
    """One image's outcome, on the CPU.

    Attributes:
        name: Of the image in the job.
        source: SHA-256 of the image's file.
        original: uint8 ``[3, H, W]``.
        base: The unrefined latents' file.
        refined: The refined latents' file; the base's where that is better after all, unless ``select`` is ``last``.
        lmbda: Of the R-D loss of both.
        bpp_estimated: Bits a pixel by the densities.
        best_step: Steps after which the written latents were reached.
        curves: ``[steps, len(CURVES)]``; see :data:`sga.refinement.result.CURVES`.
        evaluations: ``[n, len(EVALUATED)]``.
        evaluated_steps: Steps done before each of them.
        seconds: Of the refinement, without coding; of a batch, the image's share.
    """

    name: str
    source: str
    original: Tensor
    base: CodedImage
    refined: CodedImage
    lmbda: float
    bpp_estimated: float
    best_step: int
    curves: Tensor
    evaluations: Tensor
    evaluated_steps: list[int]
    seconds: float


class RefinementModule(pl.LightningModule):
    """Refines the latents of images under a frozen codec and encodes them.

    Args:
        rounding: The relaxation of rounding: the method.
        temperature: tau at each step.
        checkpoint: Of the codec: a file or ``zoo:ARCHITECTURE/METRIC/QUALITY``.
        lmbda: Weight of the distortion; by default the one of the checkpoint's training. With a target, where its search starts.
        target_bpp: Bits a pixel that every file is to have, within 1 %, header included: lambda moves until it has.
        target_psnr: PSNR in dB that every file is to decode to, within 0.05 dB, in the same way.
        distortion: ``mse`` or ``ms_ssim``; by default the one of the checkpoint's training.
        steps: Adam steps; 0 writes the encoder's latents.
        adapt_prior: Let each file tell the decoder about the prior of its image, in some 50 bytes, where that pays and there are
            steps. CompressAI does not read such files.
        learning_rate: Of y.
        learning_rate_z: Of z; by default that of y.
        learning_rate_factor: Multiplies both rates at each step.
        betas: Of Adam: decay of its means of the gradient and of its square.
        evaluate_every: Steps between two hard evaluations.
        select: ``best`` of the hard evaluations (never worse than the unrefined image) or the ``last`` latents.
        precision: Of the steps: ``bf16``, ``fp32``, or ``auto``: bf16 where the processor multiplies in it. Evaluations and
            files are in fp32.
        seed: An image's noise depends on it and on the image's name alone.

    Raises:
        ValueError: A number is out of range, or the checkpoint does not say its lambda and none is given.
        CheckpointError: The checkpoint cannot be used.
    """

    def __init__(
        self,
        rounding: Rounding,
        temperature: Schedule,
        checkpoint: str = EMBEDDED,
        lmbda: float | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        distortion: Distortion | None = None,
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
        if lmbda is not None and not 0 < lmbda < math.inf:
            raise ValueError(f"model.lmbda must be above 0, not {lmbda}")
        self.loaded = load_codec(checkpoint)
        if lmbda is None and self.loaded.lmbda is None:
            raise ValueError(f"{checkpoint} does not say the lambda it was trained with: give --model.lmbda")
        self.codec = self.loaded.codec
        distortion = distortion or self.loaded.distortion
        if lmbda is None and distortion != self.loaded.distortion:
            raise ValueError(f"lambdas for MSE and MS-SSIM do not compare: give --model.lmbda with --model.distortion {distortion}")
        self.objective = Objective(float(lmbda if lmbda is not None else self.loaded.lmbda or 0), distortion)
        self.precision, self.seed = precision, seed
        self.method = method_name(rounding)
        self.target = Target.of(target_bpp, target_psnr)
        self._targeted(self.settings)
        self.failures: dict[str, str] = {}
        self.listeners: list[BatchListener] = []

    def predict_step(self, batch: RefinementBatch, batch_idx: int) -> list[RefinedImage]:
        """Refines and encodes a batch; an image that fails goes into :attr:`failures` and the job goes on."""
        self.failures.update(batch.failures)
        if not batch.files:
            return []
        try:
            # What is reported must not depend on a precision of the Trainer.
            with torch.inference_mode(False), torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
                return self._refine(batch)
        except ValueError as error:  # an image that cannot be refined, such as one too small for MS-SSIM
            reason = str(error)
        except Exception as error:  # one image's trouble must not end a job of thousands
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        if len(batch.files) == 1:
            self.failures[batch.files[0].name] = reason
            return []
        # Trouble with one of them, or with the memory for all, leaves the others alone.
        for file in batch.files:
            self.failures.pop(file.name, None)
        return [image for one in batch.images() for image in self.predict_step(one, batch_idx)]

    def _refine(self, batch: RefinementBatch) -> list[RefinedImage]:
        for height, width in batch.sizes:
            check_size(height, width)
        seeds = [zlib.crc32(f"{self.seed}/{file.name}".encode()) for file in batch.files]
        settings = replace(self.settings, dtype=step_dtype(self.precision, self.device))
        targeted, x = self._targeted(settings), batch.x.to(self.device)

        def listener(progress: Progress) -> None:
            for listen in self.listeners:
                listen([file.name for file in batch.files], progress)

        if targeted is None:
            result = refine(self.codec, x, batch.sizes, self.objective, settings, seeds, listener)
        else:
            result = targeted.approach(x, batch.originals, seeds, listener)
        images = []
        for i, file in enumerate(batch.files):
            original, one = batch.originals[i], result.image(i)
            if not torch.isfinite(one.curves[:, 0]).all():
                kept = "; the best latents of before are kept" if targeted is not None or settings.select == "best" else ""
                rank_zero_warn(f"{file.name}: the loss was not finite at some steps{kept}")
            try:
                if targeted is not None:
                    one = targeted.land(x[i : i + 1], original, one, seeds[i])
                images.append(self._code(file, original, one))
            except (ValueError, RuntimeError) as error:
                self.failures[file.name] = str(error)
        return images

    def _code(self, file: ImageFile, original: Tensor, result: RefinementResult) -> RefinedImage:
        """Files of ONE image."""
        objective, select = self.objective, self.settings.select
        if self.target is not None:
            objective, select = replace(objective, lmbda=float(result.lmbda)), "last"  # a better loss is no nearer file
        base, refined, best_step = code_result(self.loaded, result, original, objective, select)
        return RefinedImage(
            name=file.name,
            source=file.sha256(),
            original=original,
            base=base,
            refined=refined,
            lmbda=float(objective.lmbda),
            bpp_estimated=float(result.estimated_bpp(best_step)),
            best_step=best_step,
            curves=result.curves[..., 0],
            evaluations=result.evaluations[..., 0],
            evaluated_steps=result.evaluated_steps,
            seconds=result.seconds,
        )

    def _targeted(self, settings: RefinerSettings) -> TargetedRefinement | None:
        return None if self.target is None else TargetedRefinement(self.loaded, self.objective, settings, self.target)
