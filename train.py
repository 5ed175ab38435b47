"""Trains a codec, and measures it from files.

``python train.py fit --config configs/train/scale_hyperprior.yaml --config configs/train/length/short.yaml --data.root DIR ...``

``python train.py test --config RUN/config.yaml --data.test DIR --output RUN`` writes a file for every image and measures it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

import lightning_modules.startup  # noqa: F401  (before the project's other modules)
from data.training_data import TrainingDataModule
from lightning_modules import slurm
from lightning_modules.callbacks.checkpointing import LastCheckpoint, Stopped, read_training
from lightning_modules.callbacks.evaluation import FileEvaluation
from lightning_modules.callbacks.images import Reconstructions
from lightning_modules.callbacks.latents import LatentPictures
from lightning_modules.callbacks.metrics import ValidationMetrics
from lightning_modules.callbacks.published import PublishedPoints
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.cli import ACCELERATOR, errors_in_one_line, fail
from lightning_modules.codecs.checkpoint import AtomicCheckpointIO, codec_spec
from lightning_modules.training_module import MONITOR, TrainingModule

LAST, BEST = "last.ckpt", "best.ckpt"

FIXED = ("lmbda", "distortion", "optimiser", "schedule", "learning_rate", "auxiliary_learning_rate")
"""Settings of the module that a resumed run cannot change."""


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
        parser.add_argument("--resume", default="auto", help="'auto': go on from last.ckpt, if any; 'never'; or a checkpoint.")
        parser.add_argument("--checkpoint_every", type=int, default=500, help="Steps between two writings of last.ckpt.")
        parser.add_argument("--checkpoint_minutes", type=float, default=10, help="Longest time between two writings of it.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Finds the checkpoint to test or validate before the settings are read from it.

        Raises:
            ValueError: The run has none.
        """
        super().parse_arguments(parser, args)
        config = self.config.get("test") or self.config.get("validate")
        if config is None:
            return
        config.weights_only = True  # checkpoints hold plain types alone
        if config.ckpt_path is None:
            candidates = [Path(config.output) / name for name in (BEST, LAST)]
            found = next((path for path in candidates if path.is_file()), None)
            if found is None:
                raise ValueError(f"{config.output} holds neither {BEST} nor {LAST}: give --output RUN, or --ckpt_path FILE")
            config.ckpt_path = str(found)
        read_training(Path(config.ckpt_path))  # refuses what is none

    def before_instantiate_classes(self) -> None:
        """A test has its weights from its checkpoint, and codes too few images for a compilation to pay."""
        config = self.config.get("test") or self.config.get("validate")
        if config is not None:
            config.model.warm_start, config.model.compile = None, False

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds the logger, the checkpoints and the callbacks of the project to what the configuration asks for."""
        config = self.config[self.subcommand]
        output = Path(config.output)
        self.resumed = checkpoint_to_resume(config.resume, output) if self.subcommand == "fit" else None
        self.step = 0
        if self.resumed is not None:
            training = read_training(self.resumed)
            check_same_training(self.resumed, training, self.config_init[self.subcommand].model)
            self.step = int(training["global_step"])
        if config.trainer.logger is None or config.trainer.logger is True:
            # No version: the curves of a resumed run are one. What a killed run logged after its checkpoint is logged anew.
            purge: dict[str, Any] = {"purge_step": self.step} if self.subcommand == "fit" else {}
            kwargs["logger"] = TensorBoardLogger(output, name="tensorboard", version="", default_hp_metric=False, **purge)
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
            kwargs["precision"] = "32-true"  # files are coded in fp32, whatever the model was trained in
        if config.data.valid is not None:
            callbacks.append(ModelCheckpoint(output, Path(BEST).stem, MONITOR, enable_version_counter=False))
        kwargs["default_root_dir"] = output
        plugins = [AtomicCheckpointIO(), *filter(None, [slurm.cluster_environment()])]
        trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        slurm.check_tasks(trainer.num_devices, trainer.num_nodes)
        return trainer

    def before_test(self) -> None:
        """Files are coded in fp32, and that means it."""
        torch.backends.cudnn.allow_tf32 = False

    def after_test(self) -> None:
        """Exit code 1 where an image could not be tested."""
        (files,) = (callback for callback in self.trainer.callbacks if isinstance(callback, FileEvaluation))  # type: ignore[attr-defined]
        if files.failed:
            fail(f"{len(files.failed)} images could not be tested: {', '.join(files.failed[:10])}", 1)

    def before_validate(self) -> None:
        """Refuses a validation of nothing."""
        if self.config_init["validate"].data.valid is None:
            raise ValueError("validate needs images: give their folder with --data.valid")

    def before_fit(self) -> None:
        """Goes on from the checkpoint that ``--resume`` says."""
        config = self.config_init[self.subcommand]
        if config.ckpt_path is not None:
            raise ValueError(f"fit goes on from a checkpoint with --resume {config.ckpt_path}, not with --ckpt_path")
        if self.resumed is not None:
            last = self.trainer.max_steps
            state = f"the run is finished (--trainer.max_steps {last})," if 0 <= last <= self.step else "going on"
            rank_zero_only(print)(f"{state} from {self.resumed}, step {self.step}")
            config.ckpt_path = str(self.resumed)
            config.weights_only = True  # checkpoints hold plain types alone


def checkpoint_to_resume(resume: str, output: Path) -> Path | None:
    """The checkpoint that a run goes on from.

    Args:
        resume: ``auto``, ``never`` or a path. A job that Slurm has started again goes on from its own last checkpoint in any case.
        output: Folder of the run. ``never`` puts its last checkpoint aside.
    """
    last = output / LAST
    if last.is_file() and (resume == "auto" or slurm.is_requeued()):
        return last
    if resume == "never" and last.is_file():
        rank_zero_only(last.replace)(last.with_suffix(".ckpt.old"))
    return None if resume in {"auto", "never"} else Path(resume)


def check_same_training(checkpoint: Path, training: Mapping[str, Any], module: TrainingModule) -> None:
    """Refuses to go on with another training than the one that a checkpoint, whose content is ``training``, holds.

    Raises:
        ValueError: Codec, objective or what the optimiser's state holds differ.
    """
    asked: dict[str, Any] = {**codec_spec(module.codec), **{name: module.hparams[name] for name in FIXED}}
    held = {**training.get("codec", {}), **training.get("hyper_parameters", {})}
    for name, value in asked.items():
        if held.get(name, value) != value:
            raise ValueError(
                f"{checkpoint} was trained with {name} {held[name]}, not {value}: choose another --output, or start anew with "
                "--resume never (and --model.warm_start for its weights)"
            )


def after_signal(stop: Stopped) -> int:
    """Says where a stopped run stands and, at a time limit of Slurm, puts the job back into the queue. The exit code."""
    if not stop.is_global_zero:
        return 0
    line = f"stopped by {stop.signum.name} at step {stop.step}, which {stop.checkpoint} holds"
    job = slurm.job_id()
    if stop.signum == signal.SIGUSR1 and job is not None:
        print(f"{line}: requeueing job {job}", file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm's, for what still runs of the job
        problem = slurm.requeue(job)
        if problem is None:
            return 0
        line = f"job {job} cannot be requeued ({problem}): submit it again"
    else:
        line += ": rerunning the command goes on from there"
    print(line, file=sys.stderr, flush=True)
    return int(128 + stop.signum)


def main(args: list[str] | None = None) -> int:
    """Runs the command (``args``: of it, by default the process's)."""
    with errors_in_one_line():
        try:
            TrainingCLI(
                TrainingModule,
                TrainingDataModule,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                trainer_defaults={"accelerator": ACCELERATOR, "use_distributed_sampler": False},  # the data module shards the crops
                args=args,
            )
        except Stopped as stop:
            return after_signal(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
