"""Published points in the validation charts of a training."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_modules.callbacks.reconstructions import curve_step
from lightning_modules.training_module import TrainingModule
from sga.published import PublishedPoint, published_point

CHARTS = {
    "R-D loss": "rd_loss",
    "bpp": "bpp",
    "PSNR, dB": "psnr_db",
    "MS-SSIM": "ms_ssim",
}
"""Attribute of a published point that a chart shows, by the title of the chart."""


class PublishedPoints(pl.Callback):
    """Callback that draws the published point of the codec and lambda as a line into the validation charts, if there is one.

    It logs the point at each validation as ``published/*``; TensorBoard's tab of custom scalars shows it beside ``valid/*``. The
    two are comparable where the validation images are Kodak's.
    """

    point: PublishedPoint | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self.point = published_point(pl_module.codec, pl_module.objective)
        if self.point is not None and isinstance(trainer.logger, TensorBoardLogger):
            # TensorBoard takes these tags as regular expressions.
            charts = {title: ["Multiline", [f"^{tag}$" for tag in _tags(name)]] for title, name in CHARTS.items()}
            trainer.logger.experiment.add_custom_scalars({f"validation and {self.point.architecture}": charts})

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.point is None or trainer.sanity_checking:
            return
        values = {f"published/{name}": float(getattr(self.point, name)) for name in CHARTS.values()}
        for logger in trainer.loggers:
            logger.log_metrics(values, curve_step(trainer))


def _tags(name: str) -> list[str]:
    own = ["valid/rd_loss_of_means", "valid/rd_loss"] if name == "rd_loss" else [f"valid/{name}"]
    return [*own, f"published/{name}"]
