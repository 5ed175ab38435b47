"""Trains a codec: ``python train.py fit --config configs/train/scale_hyperprior.yaml --data.root DIR --model.lmbda 0.013``.

``python train.py test --config RUN/config.yaml --data.test DIR --output RUN`` writes a file for every image and measures it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger

import lightning_modules.startup  # noqa: F401  (before the project's other modules)
from data.training_data import TrainingDataModule
from lightning_modules.callbacks.evaluation import FileEvaluation
from lightning_modules.callbacks.images import Reconstructions
from lightning_modules.callbacks.latents import LatentPictures
from lightning_modules.callbacks.metrics import ValidationMetrics
from lightning_modules.callbacks.published import ContinuousCurves, PublishedPoints
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.cli import errors_in_one_line
from lightning_modules.codecs.checkpoint import AtomicCheckpointIO
from lightning_modules.training_module import TrainingModule

LAST, BEST = "last", "best"


class SaveConfig(SaveConfigCallback):
    """Writes the resolved configuration into the folder of the run; a resumed run writes it anew."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called once, on the first rank."""
        if stage != "fit":
            return
        output = Path(self.config.output)
        output.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, output / "config.yaml", overwrite=True)


class TrainingCLI(LightningCLI):
    """The command line: model, data, trainer, and the folder of the run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What the command does, and which arguments of the Trainer's method belong to the module or the data."""
        return {
            name: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
            for name in ("fit", "validate", "test")
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to neither model nor data."""
        parser.add_argument("--output", type=Path, default=Path("runs/train"), help="Folder of the run; a rerun goes on in it.")
        parser.add_argument("--checkpoint_every", type=int, default=500, help="Steps between two writings of last.ckpt.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Finds the checkpoint to test before the settings are read from it.

        Raises:
            ValueError: The run has none.
        """
        super().parse_arguments(parser, args)
        config = self.config.get("test")
        if config is not None and config.ckpt_path is None:
            candidates = [Path(config.output) / f"{name}.ckpt" for name in (BEST, LAST)]
            found = next((path for path in candidates if path.is_file()), None)
            if found is None:
                raise ValueError(f"{config.output} holds neither best.ckpt nor last.ckpt: give --output RUN, or --ckpt_path FILE")
            config.ckpt_path = str(found)

    def before_instantiate_classes(self) -> None:
        """A test has its weights from its checkpoint, and codes too few images for a compilation to pay."""
        config = self.config.get("test")
        if config is not None:
            config.model.warm_start, config.model.compile = None, False

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds the logger, the checkpoints and the callbacks of the project to what the configuration asks for."""
        config = self.config[self.subcommand]
        output = Path(config.output)
        if config.trainer.logger is None or config.trainer.logger is True:
            # No version: the curves of a resumed run are one.
            kwargs["logger"] = TensorBoardLogger(output, name="", version="tensorboard", default_hp_metric=False)
        callbacks = [
            *(self.config_init[self.subcommand].trainer.callbacks or []),
            ModelCheckpoint(output, LAST, every_n_train_steps=config.checkpoint_every, enable_version_counter=False),
            ValidationMetrics(),
            PublishedPoints(),
            Reconstructions(),
            LatentPictures(),
            FileEvaluation(output / "test"),
        ]
        if config.trainer.logger is not False:
            callbacks += [LearningRateMonitor("step"), Throughput(), ContinuousCurves()]
        if self.subcommand == "test":
            kwargs["precision"] = "32-true"  # files are coded in fp32, whatever the model was trained in
        if config.data.valid is not None:
            callbacks.append(ModelCheckpoint(output, BEST, "valid/rd_loss", enable_version_counter=False))
        kwargs["default_root_dir"] = output  # where Lightning writes and looks for the checkpoint of a requeued job
        return super().instantiate_trainer(callbacks=callbacks, plugins=[AtomicCheckpointIO()], **kwargs)

    def before_test(self) -> None:
        """Files are coded in fp32, and that means it."""
        torch.backends.cudnn.allow_tf32 = False

    def before_fit(self) -> None:
        """Goes on from the last checkpoint of the folder, unless another was asked for."""
        config = self.config_init[self.subcommand]
        last = Path(config.output) / f"{LAST}.ckpt"
        requeued = max((path.stat().st_mtime for path in last.parent.glob("hpc_ckpt_*.ckpt")), default=0.0)
        # Of a requeued job's checkpoint, Lightning finds the path by itself.
        if config.ckpt_path is None and last.is_file() and last.stat().st_mtime > requeued:
            print(f"going on from {last}")
            config.ckpt_path = str(last)

    def after_fit(self) -> None:
        """The last checkpoint is that of the last step."""
        self.trainer.save_checkpoint(Path(self.config[self.subcommand].output) / f"{LAST}.ckpt")


def main(args: list[str] | None = None) -> int:
    """Runs the command (``args``: of it, by default the process's)."""
    with errors_in_one_line():
        TrainingCLI(
            TrainingModule,
            TrainingDataModule,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={"use_distributed_sampler": False},  # the data module shards the crops
            args=args,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
