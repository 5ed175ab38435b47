"""Latents beside the scales that the hyperprior predicts for them: figure 2 of Balle et al. 2018, while a codec trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_modules.callbacks.reconstructions import curve_step
from lightning_modules.training_module import TrainingModule
from sga.latent_channel import latent_panels
from sga.pictures import captioned


class LatentPictures(pl.Callback):
    """Callback that draws the first validation image and one channel of its y into TensorBoard, as ``latents/*``.

    The pictures are the image; y; the means, where the codec predicts them; the standard deviations sigma; and y (less its means)
    divided by sigma, which looks like noise once the hyperprior captures all structure of the image. A codec without a hyperprior
    has y alone. The channel is the one in which the predicted scales save the most bits.
    """

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        assert isinstance(outputs, Mapping) and isinstance(pl_module, TrainingModule)
        x = batch[0]
        if batch_idx > 0 or len(x) == 0 or not (trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger)):
            return
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            panels = latent_panels(pl_module.codec, x[:1], outputs["x"][0])
        for number, (name, (caption, panel)) in enumerate(panels.items(), start=1):  # TensorBoard sorts by name
            picture = np.asarray(captioned({caption: panel}))
            trainer.logger.experiment.add_image(f"latents/{number}_{name}", picture, curve_step(trainer), dataformats="HWC")
