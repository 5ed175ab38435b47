"""Trains a codec end to end on the rate-distortion loss, with additive uniform noise in place of rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_modules.codecs import Codec
from lightning_modules.codecs.checkpoint import codec_spec, load_weights, without_tables
from lightning_modules.rate_distortion import RateDistortion, rate_distortion
from lightning_modules.rounding import Noise, Rounding, UniformNoise, hard_round

Evaluation = dict[str, Any]


class TrainingModule(pl.LightningModule):
    """Minimises ``lmbda * 255^2 * MSE + bpp + auxiliary loss`` (Balle et al. 2018, section 3).

    One Adam with two parameter groups: the codec, and the quantiles that the auxiliary loss alone trains. The gradients of the
    two losses do not meet, so this equals two optimisers with two backward passes.

    Args:
        codec: The model to train.
        lmbda: Weight of the distortion; larger is better quality at more bits.
        learning_rate: Of the codec, at its highest.
        auxiliary_learning_rate: Of the quantiles, constant.
        warmup_steps: Steps over which the learning rate rises from 0.
        final_learning_rate: Reached at the last step, by a cosine.
        clip_norm: Largest norm of the codec's gradient; the quantiles' is left alone.
        compile: Compile the transforms with inductor. It pays from some thousand steps on.
        warm_start: Checkpoint whose weights training starts from, of any kind that ``refine.py`` reads.
        seed: Of the training noise.

    Raises:
        ValueError: A number is out of range.
        CheckpointError: The warm start cannot be used.
    """

    def __init__(
        self,
        codec: Codec,
        lmbda: float = 0.013,
        learning_rate: float = 1e-4,
        auxiliary_learning_rate: float = 1e-3,
        warmup_steps: int = 0,
        final_learning_rate: float = 1e-6,
        clip_norm: float = 1.0,
        compile: bool = False,
        warm_start: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (lmbda > 0 and learning_rate > 0 and clip_norm > 0):
            raise ValueError("model.lmbda, model.learning_rate and model.clip_norm must be above 0")
        self.save_hyperparameters(ignore=["codec"])
        self.codec = codec.to(memory_format=torch.channels_last)
        self.lmbda = lmbda
        self.learning_rate, self.auxiliary_learning_rate = learning_rate, auxiliary_learning_rate
        self.warmup_steps, self.final_learning_rate = warmup_steps, final_learning_rate
        self.clip_norm, self.seed = clip_norm, seed
        self.rounding: Rounding = UniformNoise()
        if warm_start:
            load_weights(self.codec, warm_start)
        if compile:
            for name in ("g_a", "g_s", "h_a", "h_s"):
                if hasattr(self.codec.net, name):
                    getattr(self.codec.net, name).compile()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch of crops ``[B, 3, H, W]``."""
        batches = self.trainer.fit_loop.epoch_loop.total_batch_idx
        # A seed for each crop of the run instead of one stream: a resumed run draws what it would have drawn.
        world, crops = self.trainer.world_size, len(batch) * self.trainer.world_size
        first = (self.seed * 1_000_003 + batches) * crops + self.global_rank  # ranks take turns, as their crops do
        loss, result, auxiliary = self.loss(batch, range(first, first + crops, world))
        self._log_training(result, auxiliary)
        return loss

    def loss(self, x: Tensor, seeds: Sequence[int]) -> tuple[Tensor, RateDistortion, Tensor]:
        """What is minimised, for crops ``[B, 3, H, W]`` with a seed of the noise each; its two parts beside it."""
        x = x.contiguous(memory_format=torch.channels_last)
        noise = Noise(seeds, x.device)
        latents = self.codec.analyse(x)
        quantised = self.codec.quantise(latents, lambda value, offset: self.rounding(value, offset, 1.0, noise))
        x_hat = self.codec.synthesise(quantised.y_hat)
        result = rate_distortion(x, x_hat, self.codec.bits(quantised), self.lmbda, x.shape[-2] * x.shape[-1])
        auxiliary = self.codec.auxiliary_loss()
        return result.loss.mean() + auxiliary, result, auxiliary

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Evaluation:
        """Codes whole images with hard rounding; what it returns is for the callbacks, cropped to the true image."""
        x, (size,) = batch
        height, width = size.tolist()
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.compiler.set_stance("force_eager"):  # every size would be compiled anew
            quantised = self.codec.quantise(self.codec.analyse(x), hard_round)
            x_hat = self.codec.synthesise(quantised.y_hat)[..., :height, :width].clamp(0, 1)
        bits = self.codec.bits(quantised)
        x = x[..., :height, :width]
        result = rate_distortion(x, x_hat, bits, self.lmbda, height * width)
        self.log("valid/rd_loss", result.loss.mean(), on_epoch=True, batch_size=len(x), sync_dist=True)
        return {"x": x, "x_hat": x_hat, "bits": bits.total}

    def configure_optimizers(self) -> Any:
        """Adam on (codec, quantiles) with linear warm-up and a cosine for the first group, by step."""
        quantiles = self.codec.quantiles
        chosen = {id(parameter) for parameter in quantiles}
        main = [parameter for parameter in self.codec.parameters() if id(parameter) not in chosen]
        optimizer = torch.optim.Adam(
            [
                {"params": main, "lr": self.learning_rate, "name": "codec"},
                {"params": quantiles, "lr": self.auxiliary_learning_rate, "name": "quantiles"},
            ],
            fused=True,
        )
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: self._rate(step, total), lambda _: 1.0])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clips the codec's group alone: the quantiles' gradient would use up the whole norm."""
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.clip_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds how to build the codec, in plain types."""
        checkpoint["codec"] = codec_spec(self.codec)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drops coding tables: a model in training has none."""
        checkpoint["state_dict"] = without_tables(checkpoint["state_dict"])

    def _rate(self, step: int, total: int) -> float:
        """Learning rate over its highest, at ``step`` of ``total``."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        done = min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps))
        least = self.final_learning_rate / self.learning_rate
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))

    def _log_training(self, result: RateDistortion, auxiliary: Tensor) -> None:
        values = {
            "loss": result.loss,
            "bpp": result.bpp,
            "bpp_y": result.bpp_y,
            "bpp_z": result.bpp_z,
            "psnr_db": result.psnr_db,
            "auxiliary_loss": auxiliary,
        }
        self.log_dict({f"train/{name}": value.detach().mean() for name, value in values.items()})
