"""Trains a codec: ``python train.py fit --config configs/train/scale_hyperprior.yaml --data.root DIR``."""

from __future__ import annotations

from pytorch_lightning.cli import LightningCLI

import lightning_modules.quiet  # noqa: F401  (first: it quietens the imports below)
from data.training_data import TrainingDataModule
from lightning_modules.training_module import TrainingModule


def main() -> None:
    LightningCLI(TrainingModule, TrainingDataModule, save_config_kwargs={"overwrite": True})


if __name__ == "__main__":
    main()
