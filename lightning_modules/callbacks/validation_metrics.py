"""R-D loss and metrics of the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torchmetrics import MeanMetric

from lightning_modules.callbacks.image_means import QualityMeans
from lightning_modules.training_module import TrainingModule
from sga.images import to_uint8
from sga.measures import Coding
from sga.quality import Quality


class ValidationMetrics(pl.Callback):
    """Callback that logs means over the validation images of all ranks, coded with hard-rounded latents.

    ``valid/rd_loss`` is the value that checkpoints and schedulers use, the same on every rank. ``valid/bpp`` is from estimated
    bits; ``valid/psnr_db`` and every other metric that needs no file are measured on 8-bit images. ``valid/rd_loss_of_means`` is
    the R-D loss of the mean bpp and the mean PSNR (or MS-SSIM), to compare with published points, which are such means. It is left
    out where it needs an MS-SSIM and no image is large enough for one. ``valid/without_psnr_db`` is the number of images that the
    mean PSNR leaves out because they are perfect, ``valid/without_ms_ssim`` that of the images too small for an MS-SSIM.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.of_pixels = QualityMeans()
        # A loss that is not finite must appear in the mean, not be left out.
        self.rd_loss = MeanMetric(nan_strategy="disable")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.of_pixels.to(pl_module.device).reset()
        self.rd_loss.to(pl_module.device).reset()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        assert isinstance(outputs, Mapping)
        for x, x_hat, bits, loss in zip(outputs["x"], outputs["x_hat"], outputs["bits"], outputs["rd_loss"], strict=True):
            self.of_pixels.update(Quality.of(Coding(to_uint8(x), to_uint8(x_hat), float(bits))))
            self.rd_loss.update(loss)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        means = {name: float(value) for name, value in self.of_pixels.compute().items()}
        of_means = Quality.from_values(means).loss(pl_module.objective) if means else None
        if of_means is not None:
            means["rd_loss_of_means"] = of_means
        means["rd_loss"] = float(self.rd_loss.compute())
        # The means are over all ranks already; sync_dist averages equal numbers and only keeps Lightning from warning.
        pl_module.log_dict({f"valid/{name}": value for name, value in means.items()}, sync_dist=True)
