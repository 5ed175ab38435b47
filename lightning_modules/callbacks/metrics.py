"""PSNR, MS-SSIM and bpp of the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torchmetrics import Metric, MetricCollection

from data.images import to_uint8
from lightning_modules.metrics import BitsPerPixel, MsSsim, Psnr


class ValidationMetrics(pl.Callback):
    """Logs ``valid/psnr_db``, ``valid/ms_ssim`` and ``valid/bpp`` (estimated bits) of the hard-rounded validation images."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        metrics: dict[str, Metric | MetricCollection] = {"psnr_db": Psnr(), "ms_ssim": MsSsim(), "bpp": BitsPerPixel()}
        self.metrics = MetricCollection(metrics, compute_groups=False, prefix="valid/").to(pl_module.device)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics.to(pl_module.device).reset()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        assert isinstance(outputs, Mapping)
        for x, x_hat, bits in zip(outputs["x"], outputs["x_hat"], outputs["bits"], strict=True):
            self.metrics.update(to_uint8(x), to_uint8(x_hat), bits)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log_dict({name: value.float() for name, value in self.metrics.compute().items()})
