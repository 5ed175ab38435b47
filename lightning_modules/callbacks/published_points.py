"""Published points in the validation charts of a training."""

from __future__ import annotations

import math

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from data.training_data import TrainingDataModule
from lightning_modules.callbacks.reconstructions import curve_step
from lightning_modules.training_module import TrainingModule
from sga.images import ImageError, image_size
from sga.published import KODAK, PublishedPoint, published_point, whole_kodak

CHARTS = {
    "R-D loss": "rd_loss",
    "bpp": "bpp",
    "PSNR, dB": "psnr_db",
    "MS-SSIM": "ms_ssim",
}
"""Attribute of a published point that a chart shows, by the title of the chart."""


class PublishedPoints(pl.Callback):
    """Callback that draws the published point of the codec and lambda as a line into the validation charts, if there is one.

    It logs the point at each validation as ``published/*``; TensorBoard's tab of custom scalars shows it beside ``valid/*``. It
    does so only where the validation images are the 24 of Kodak, as others do not compare.
    """

    point: PublishedPoint | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self.point = published_point(pl_module.codec, pl_module.objective) if _validates_on_kodak(trainer) else None
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


def _validates_on_kodak(trainer: pl.Trainer) -> bool:
    data: TrainingDataModule = trainer.datamodule  # type: ignore[attr-defined]
    paths = data.valid_paths if data.valid else []
    if {path.stem for path in paths} != KODAK:
        return False  # without a look into any of many files
    try:
        return whole_kodak({path.stem: math.prod(image_size(path)) for path in paths})
    except ImageError:
        return False  # a validation reports it


def _tags(name: str) -> list[str]:
    own = ["valid/rd_loss_of_means", "valid/rd_loss"] if name == "rd_loss" else [f"valid/{name}"]
    return [*own, f"published/{name}"]
