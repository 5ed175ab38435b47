"""Trains a codec end to end on the rate-distortion loss, with additive uniform noise in place of rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_modules.compilation import compile_transforms
from lightning_modules.optimiser import Cosine, WallTimeCosine, adam, soap
from lightning_modules.variable_rate import lmbdas_of, loss_weight
from sga.codecs import Codec
from sga.codecs.checkpoint import CheckpointError, codec_spec, load_weights, without_tables
from sga.distortion import DistortionName, TruePixels
from sga.images import to_uint8
from sga.loading import coding_copy
from sga.photograph import encode_photograph
from sga.rate_distortion import Objective, RateDistortion, rate_distortion
from sga.refinement.noise import BatchNoise, Noise
from sga.refinement.rounding import Rounding, StraightThrough, UniformNoise, hard_round

Evaluation = dict[str, Any]

MONITOR = "valid/rd_loss"
"""What checkpoints and schedules look at."""

CHECK_EVERY = 10
"""Steps between two looks at the count of non-finite steps: a look waits for the device."""


class TrainingDiverged(ValueError):
    """Too many steps in a row had a gradient that is not finite."""


class TrainingModule(pl.LightningModule):
    """Minimises ``lmbda * 255^2 * MSE + bpp`` or ``lmbda * (1 - MS-SSIM) + bpp`` (Balle et al. 2018, section 3).

    One Adam with two parameter groups: the codec, and the quantiles that the auxiliary loss alone trains. The gradients of the
    two losses do not meet, so this equals two optimisers with two backward passes.

    A step whose gradient is not finite changes nothing and is counted (``train/skipped_steps``).

    Args:
        codec: The model to train.
        lmbda: Weight of the distortion; larger is better quality at more bits. Of a codec of variable rate, that of validation.
        lmbdas: Least and greatest lambda of the crops of a codec of variable rate: each crop has its own, log-uniform between.
        distortion: ``mse``, or ``ms_ssim`` (crops of 192 pixels or more; lambdas of another scale).
        learning_rate: Learning rate of the codec, at its highest.
        auxiliary_learning_rate: Learning rate of the quantiles, constant.
        optimiser: ``adam``, or ``soap``, which needs far fewer steps from scratch (:mod:`lightning_modules.soap`).
        schedule: ``cosine`` over ``--trainer.max_steps``, or over ``minutes``; or ``plateau``: halved when the validation loss has
            not fallen for ``plateau_patience`` validations, as CompressAI's models were trained.
        minutes: Length of a cosine over wall time, all runs of the training together, after which it ends; for one device.
        warmup_steps: Steps over which the learning rate rises from 0, before the cosine.
        final_learning_rate: Reached at the last step of the cosine; the plateau schedule stops there.
        plateau_patience: Validations without improvement before the learning rate is halved.
        clip_norm: Largest norm of the codec's gradient; the quantiles' is left alone.
        max_skipped_steps: So many non-finite steps in a row end the training.
        compile: Compile the transforms with inductor, given a C++ compiler. It pays from some thousand steps on.
        warm_start: Checkpoint whose weights training starts from, of any kind that ``refine.py`` reads, and of any codec with
            the same transforms.
        seed: Seed of the training noise.

    Raises:
        ValueError: A number is out of range.
        CheckpointError: The warm start cannot be used.
    """

    skipped_steps: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        codec: Codec,
        lmbda: float = 0.013,
        lmbdas: tuple[float, float] = (0.0018, 0.18),
        distortion: DistortionName = "mse",
        optimiser: Literal["adam", "soap"] = "adam",
        learning_rate: float = 1e-4,
        auxiliary_learning_rate: float = 1e-3,
        schedule: Literal["cosine", "plateau"] = "cosine",
        minutes: float | None = None,
        warmup_steps: int = 0,
        final_learning_rate: float = 1e-6,
        plateau_patience: int = 20,
        clip_norm: float = 1.0,
        max_skipped_steps: int = 100,
        compile: bool = False,  # noqa: A002  (the name of the option)
        warm_start: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (lmbda > 0 and learning_rate > 0 and clip_norm > 0):
            raise ValueError("model.lmbda, model.learning_rate and model.clip_norm must be above 0")
        if not 0 <= final_learning_rate <= learning_rate or min(max_skipped_steps, plateau_patience + 1, warmup_steps + 1) < 1:
            raise ValueError(
                "model.final_learning_rate must be from 0 to model.learning_rate, model.max_skipped_steps at least 1, "
                "model.plateau_patience and model.warmup_steps at least 0"
            )
        if not 0 < lmbdas[0] <= lmbdas[1] or (minutes is not None and not (minutes > 0 and schedule == "cosine")):
            raise ValueError("model.lmbdas must be above 0 and rising; model.minutes too, and for the cosine schedule")
        if codec.variable_rate and distortion != "mse":
            raise ValueError("a codec of variable rate is trained for MSE: its gain is for lambdas of MSE")
        lmbdas = (float(lmbdas[0]), float(lmbdas[1]))
        self.save_hyperparameters(ignore=["codec"])
        self.codec = nn.utils.convert_conv2d_weight_memory_format(codec, torch.channels_last)
        self.objective = Objective(lmbda, distortion)
        self.learning_rate, self.auxiliary_learning_rate = learning_rate, auxiliary_learning_rate
        self.lmbdas, self.optimiser, self.minutes = lmbdas, optimiser, minutes
        self.schedule, self.plateau_patience = schedule, plateau_patience
        self.warmup_steps, self.final_learning_rate = warmup_steps, final_learning_rate
        self.clip_norm, self.max_skipped_steps, self.seed = clip_norm, max_skipped_steps, seed
        self.rounding: Rounding = UniformNoise()
        self._gradient_norm: Tensor | None = None
        self.register_buffer("skipped_steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("skipped_in_a_row", torch.zeros((), dtype=torch.long))
        if warm_start:
            new = load_weights(self.codec, warm_start)
            if new:
                rank_zero_info(f"{warm_start}: another architecture; not in it and trained from scratch: {', '.join(new)}")
        if compile:
            compile_transforms(self.codec)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch of crops ``[B, 3, H, W]``."""
        # A seed for each crop of the run instead of one stream: a resumed run draws what it would have drawn, and any number
        # of ranks draws the same for a crop (rank r has crops r, r + world, ...).
        world = self.trainer.world_size
        first = self.trainer.fit_loop.epoch_loop.total_batch_idx * world * len(batch) + (self.seed << 40)
        loss, result, auxiliary = self.loss(batch, range(first + self.global_rank, first + world * len(batch), world))
        if self._logs(self.trainer.global_step + 1):
            self._log_training(result, auxiliary)
        return loss

    def loss(self, x: Tensor, seeds: Sequence[int]) -> tuple[Tensor, RateDistortion, Tensor]:
        """What is minimised, for crops ``[B, 3, H, W]`` with a seed of the noise each; its two parts beside it."""
        x = x.contiguous(memory_format=torch.channels_last)
        noise = Noise(seeds, x.device) if x.device.type == "cpu" else BatchNoise(seeds[0], x.device)
        objective, weight = self.objective, x.new_ones(len(x))
        if self.codec.variable_rate:
            lmbda = lmbdas_of(seeds, *self.lmbdas).to(x.device)
            objective, weight = Objective(lmbda), loss_weight(lmbda)
        latents = self.codec.analyse(x, self.codec.gain_for(objective.lmbda))

        def noisy(value: Tensor, offset: Tensor | None) -> Tensor:
            return self.rounding(value, offset, 1.0, noise)

        quantised = self.codec.quantise(latents, noisy, noisy)
        decoded = quantised
        if self.codec.variable_rate:
            # At a small gain nearly all symbols are 0, and noise looks nothing like what the synthesis will see.
            decoded = replace(quantised, y_hat=StraightThrough()(latents.y, None, 1.0, noise))
        x_hat = self.codec.synthesise(self.codec.dequantise(decoded))
        result = rate_distortion(x, x_hat, self.codec.bits(quantised), objective, TruePixels.of(x))
        auxiliary = self.codec.auxiliary_loss()
        return (weight * result.loss).mean() + auxiliary, result, auxiliary

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Evaluation:
        """Codes whole images with hard rounding; what it returns is for the callbacks, cropped to the true image."""
        x, (size,) = batch
        height, width = size.tolist()
        if len(x) > 0 and min(height, width) < (shortest := self.objective.measure.min_side):
            rank_zero_warn(f"validation images with a side under {shortest} pixels are left out: they have no MS-SSIM")
            x = x[:0]
        if len(x) == 0:  # also of a rank without an image
            return {"x": x, "x_hat": x, "bits": x.new_empty(0), "rd_loss": x.new_empty(0)}
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.compiler.set_stance("force_eager"):  # every size would be compiled anew
            gain = self.codec.gain_for(self.objective.lmbda)
            quantised = self.codec.quantise(self.codec.analyse(x, gain), hard_round, hard_round)
            x_hat = self.codec.synthesise(self.codec.dequantise(quantised))[..., :height, :width].clamp(0, 1)
        bits = self.codec.bits(quantised)
        x = x[..., :height, :width]
        result = rate_distortion(x, x_hat, bits, self.objective, TruePixels.of(x))
        return {"x": x, "x_hat": x_hat, "bits": bits.total, "rd_loss": result.loss}

    def on_test_start(self) -> None:
        """Prepares a copy of the codec for coding."""
        self.coder = coding_copy(self.codec, float(self.objective.lmbda), self.objective.distortion)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Evaluation | None:
        """Codes a whole image into a file and decodes it, in fp32; ``None`` for the empty batch of a rank without an image."""
        x, (size,) = batch
        if len(x) == 0:
            return None
        height, width = size.tolist()
        with torch.autocast(self.device.type, enabled=False):
            coded, bpp_estimated = encode_photograph(self.coder, to_uint8(x[0, :, :height, :width]))
        return {"coded": coded, "bpp_estimated": bpp_estimated}

    def configure_optimizers(self) -> Any:
        """Adam on (codec, quantiles); the schedule moves the learning rate of the first group.

        Raises:
            ValueError: A cosine without an end, or a plateau without validation.
        """
        build = soap if self.optimiser == "soap" else adam
        optimizer = build(self.codec, self.learning_rate, self.auxiliary_learning_rate)
        if self.schedule == "plateau":
            least = [self.final_learning_rate, self.auxiliary_learning_rate]
            plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=self.plateau_patience, min_lr=least)
            if not self.trainer.enable_validation or not self.trainer.datamodule.valid:  # type: ignore[attr-defined]
                raise ValueError("the plateau schedule looks at the validation loss: give --data.valid")
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": MONITOR}}
        if self.minutes is not None:
            if self.trainer.world_size > 1:
                raise ValueError("model.minutes is for one device: give --trainer.max_steps")
            timed = WallTimeCosine(optimizer, self.final_learning_rate, self.warmup_steps, 60 * self.minutes)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": timed, "interval": "step"}}
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError("the cosine schedule needs an end: give --trainer.max_steps")
        scheduler = Cosine(optimizer, self.final_learning_rate, self.warmup_steps, int(total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Leaves the plateau alone: Lightning does not step it at the first validation after a resume."""
        if self.schedule == "cosine":
            scheduler.step()
        if isinstance(scheduler, WallTimeCosine) and scheduler.progress == 1:
            self.trainer.should_stop = True

    def on_validation_end(self) -> None:
        """Steps the plateau once for each validation."""
        if self.schedule == "plateau" and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.lr_schedulers().step(self.trainer.callback_metrics[MONITOR])  # type: ignore[union-attr, arg-type]

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clips the codec's group alone (the quantiles' gradient would use up the whole norm), and has a step skipped whose
        gradient is not finite."""
        main, quantiles = (group["params"] for group in optimizer.param_groups)
        self._gradient_norm = torch.nn.utils.clip_grad_norm_(main, self.clip_norm)
        finite = torch.isfinite(self._gradient_norm + torch.nn.utils.get_total_norm([q.grad for q in quantiles]))
        # The fused Adam and SOAP leave everything as it was where this is 1, on any device and without waiting for it.
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.skipped_steps += ~finite
        self.skipped_in_a_row.add_(1).mul_(~finite)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Logs the gradient's norm, and ends a training that diverged.

        Raises:
            TrainingDiverged: ``max_skipped_steps`` steps in a row were not finite.
        """
        if self._gradient_norm is not None and self._logs(self.trainer.global_step):  # an accumulated batch has none yet
            self.log_dict({"train/gradient_norm": self._gradient_norm, "train/skipped_steps": self.skipped_steps.float()})
        if batch_idx % CHECK_EVERY == 0 and self.skipped_in_a_row >= self.max_skipped_steps:
            raise TrainingDiverged(
                f"training diverged: the gradients of the last {int(self.skipped_in_a_row)} steps, up to "
                f"{self.trainer.global_step}, were not finite; start anew with a smaller rate: "
                "--resume never --model.warm_start RUN/best.ckpt --model.learning_rate RATE"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds how to build the codec, in plain types."""
        checkpoint["codec"] = codec_spec(self.codec)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drops coding tables: a model in training has none.

        Raises:
            CheckpointError: The checkpoint is of another codec than the configuration's.
        """
        spec = codec_spec(self.codec)
        if checkpoint.get("codec", spec) != spec:
            raise CheckpointError(
                f"the checkpoint is of {checkpoint['codec']}, the configuration of {spec}: use the config.yaml of its run"
            )
        checkpoint["state_dict"] = without_tables(checkpoint["state_dict"])

    def _logs(self, step: int) -> bool:
        """Whether the curves get what belongs to the step that ends with ``step`` done; the logging of every step would cost a
        GPU's step a tenth of its time."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and step % every == 0

    def _log_training(self, result: RateDistortion, auxiliary: Tensor) -> None:
        values = {
            "loss": result.loss,
            "bpp": result.bpp,
            "bpp_y": result.bpp_y,
            "bpp_z": result.bpp_z,
            "psnr_db": result.psnr_db,
            "auxiliary_loss": auxiliary,
        }
        means = torch.stack([value.detach().mean() for value in values.values()])
        if self.trainer.world_size > 1:
            means = self.trainer.strategy.reduce(means, reduce_op="mean")  # one message for all of them
        self.log_dict({f"train/{name}": mean for name, mean in zip(values, means, strict=True)})
