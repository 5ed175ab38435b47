"""Command line of ``train.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from data.training_data import TrainingDataModule
from lightning_modules import slurm
from lightning_modules.callbacks.checkpointing import AtomicCheckpointIO, LastCheckpoint, read_training
from lightning_modules.callbacks.file_evaluation import FileEvaluation
from lightning_modules.callbacks.latent_pictures import LatentPictures
from lightning_modules.callbacks.published_points import PublishedPoints
from lightning_modules.callbacks.reconstructions import Reconstructions
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.callbacks.validation_metrics import ValidationMetrics
from lightning_modules.command_line import ACCELERATOR, CommandLine, with_configs
from lightning_modules.ownership import Owner, refuse_foreign
from lightning_modules.training_configs import known_configs, training_configs
from lightning_modules.training_module import MONITOR, TrainingModule
from lightning_modules.training_run import (
    BEST,
    LAST,
    check_same_training,
    checkpoint_to_measure,
    checkpoint_to_resume,
    keep_others_out,
)
from sga.cli import fail
from sga.files import replacing
from sga.runs.folder import CONFIG

PRECISIONS = ("32-true", "bf16-mixed")
"""Arithmetic of a training. The entropy models need fp32, and the gradients of fp16 would have to be scaled."""

_SHORT = {None: "32-true", 32: "32-true", "32": "32-true", "bf16": "bf16-mixed"}
"""Other words of Lightning's for :data:`PRECISIONS`."""


class SaveConfig(SaveConfigCallback):
    """Callback that writes the resolved configuration into the folder of the run; a resumed run overwrites it.

    It does so once the run has taken up its checkpoint: one that is refused leaves the folder as it was.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Writes ``config.yaml``."""
        output = Path(self.config.output)
        output.mkdir(parents=True, exist_ok=True)
        with replacing(output / CONFIG) as temporary:
            self.parser.save(self.config, temporary, overwrite=True)


class TrainingCLI(CommandLine):
    """Command line that builds the model, the data module and the trainer of ``train.py`` and runs its subcommand.

    Args:
        args: Arguments of the command.
        prog: What the help calls the command.

    Raises:
        ValueError: The settings cannot be run.
        Stopped: A signal ended the training.
    """

    description = "Trains a codec, and measures it from files."
    config_help = (
        f"A name of configs/train ({', '.join(known_configs())}), one of its codecs with a published quality (CODEC/mse_1, such as "
        "scale_hyperprior/mse_4, sets its lambda, distortion and sizes), or a file. Several are applied in turn."
    )

    without_effect: ClassVar[Mapping[str, str]] = {
        "gradient_clip_val": "--model.clip_norm clips the gradient",
        "gradient_clip_algorithm": "--model.clip_norm clips the gradient by its norm",
        "default_root_dir": "--output is the folder of the run",
        "use_distributed_sampler": "processes share the crops by themselves",
        "enable_checkpointing": "--checkpoint_every sets how often last.ckpt is written",
        "plugins": "the project's own write the checkpoints and know the cluster",
    }

    def __init__(self, args: Sequence[str], prog: str = "train.py") -> None:
        super().__init__(
            TrainingModule,
            TrainingDataModule,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={"accelerator": ACCELERATOR, "use_distributed_sampler": False},  # the data module shards the crops
            args=with_configs(args, training_configs),
            parser_kwargs={"prog": prog},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Subcommands, each with the arguments of the Trainer's method that get no option of their own."""
        return {
            name: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
            for name in ("fit", "validate", "test")
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that belong to neither the model nor the data."""
        parser.add_argument("--output", type=Path, default=Path("runs/train"), help="Folder of the run; a rerun goes on in it.")
        parser.add_argument("--resume", default="auto", help="'auto': go on from last.ckpt, if any; 'never'; or a checkpoint.")
        parser.add_argument("--checkpoint_every", type=int, default=500, help="Steps between two writings of last.ckpt.")
        parser.add_argument("--checkpoint_minutes", type=float, default=10, help="Most minutes between two writings of last.ckpt.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments and finds the checkpoint to test or validate, from which Lightning then reads settings.

        Raises:
            ValueError: The folder of the run holds something else, the run has no checkpoint, or an option is not supported.
        """
        super().parse_arguments(parser, args)
        precision = self.config[self.config.subcommand].trainer.precision
        if self.config.subcommand != "test" and _SHORT.get(precision, precision) not in PRECISIONS:
            raise ValueError(f"--trainer.precision {precision} is not supported: use {' or '.join(PRECISIONS)}")
        refuse_foreign(Path(self.config[self.config.subcommand].output), Owner.TRAINING)
        config = self.config.get("test") or self.config.get("validate")
        if config is None:
            return
        config.weights_only = True  # checkpoints hold plain types alone
        if config.ckpt_path is None:
            config.ckpt_path = str(checkpoint_to_measure(Path(config.output)))
        read_training(Path(config.ckpt_path))  # refuses other files

    def before_instantiate_classes(self) -> None:
        """Turns off warm start and compilation for a test: its weights are in the checkpoint, and its images are too few."""
        config = self.config.get("test") or self.config.get("validate")
        if config is not None:
            config.model.warm_start, config.model.compile = None, False

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer of the configuration, with the project's logger, checkpoints and callbacks; writes nothing."""
        config = self.config[self.subcommand]
        output = Path(config.output)
        callbacks = [
            *(self.config_init[self.subcommand].trainer.callbacks or []),
            LastCheckpoint(output / LAST, config.checkpoint_every, config.checkpoint_minutes),
            ValidationMetrics(),
            PublishedPoints(),
            Reconstructions(),
            LatentPictures(),
            FileEvaluation(output / "test"),
        ]
        if config.trainer.logger is not False:
            callbacks += [LearningRateMonitor("step"), Throughput()]
        if self.subcommand == "test":
            kwargs["precision"] = "32-true"  # files are coded in fp32, whatever the precision of the training
        if config.data.valid is not None:
            callbacks.append(ModelCheckpoint(output, Path(BEST).stem, MONITOR, enable_version_counter=False))
        kwargs["default_root_dir"] = output
        plugins = [AtomicCheckpointIO(), *filter(None, [slurm.cluster_environment()])]
        trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        slurm.check_tasks(trainer.num_devices, trainer.num_nodes)
        self._log_into_run(trainer)
        return trainer

    def _log_into_run(self, trainer: pl.Trainer, **settings: Any) -> None:
        """Puts TensorBoard's logger of the run's folder in the place of Lightning's default; one that was asked for stays."""
        config = self.config[self.subcommand]
        if config.trainer.logger in (None, True) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            # No version: a resumed run continues its curves.
            trainer.logger = TensorBoardLogger(config.output, name="tensorboard", version="", default_hp_metric=False, **settings)

    def before_test(self) -> None:
        """Turns TF32 off: files are coded in full fp32."""
        torch.backends.cudnn.allow_tf32 = False

    def after_test(self) -> None:
        """Ends the program with exit code 1 where an image could not be tested."""
        (files,) = (callback for callback in self.trainer.callbacks if isinstance(callback, FileEvaluation))  # type: ignore[attr-defined]
        if files.failed:
            fail(f"{len(files.failed)} images could not be tested: {', '.join(files.failed[:10])}", 1)

    def before_validate(self) -> None:
        """Refuses a validation without images."""
        if self.config_init["validate"].data.valid is None:
            raise ValueError("validate needs images: give their folder with --data.valid")

    def before_fit(self) -> None:
        """Keeps other trainings out of the folder, and resumes from the checkpoint that ``--resume`` selects, if any."""
        config = self.config_init[self.subcommand]
        if config.ckpt_path is not None:
            raise ValueError(f"fit goes on from a checkpoint with --resume {config.ckpt_path}, not with --ckpt_path")
        output = Path(config.output)
        keep_others_out(output)
        resumed, step = checkpoint_to_resume(config.resume, output), 0
        if resumed is not None:
            training = read_training(resumed)
            check_same_training(resumed, training, config.model)
            step, last = int(training["global_step"]), self.trainer.max_steps
            state = f"the run is finished (--trainer.max_steps {last})," if 0 <= last <= step else "going on"
            rank_zero_only(print)(f"{state} from {resumed}, step {step}")
            config.ckpt_path = str(resumed)
            config.weights_only = True  # checkpoints hold plain types alone
        self._log_into_run(self.trainer, purge_step=step)  # values that a killed run logged after its checkpoint
