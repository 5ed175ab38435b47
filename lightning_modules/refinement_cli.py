"""Command line of ``refine.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.cli import LightningArgumentParser

from data.folders import unique_names
from data.refinement_data import ImageFile, RefinementDataModule
from lightning_modules import slurm
from lightning_modules.command_line import ACCELERATOR, CommandLine, config_file, with_configs
from lightning_modules.job import Job
from lightning_modules.refinement_module import RefinementModule
from sga.refinement.presets import CONFIGS, DEFAULT_OF_JOBS, names

TRAINER_DEFAULTS = {
    "accelerator": ACCELERATOR,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "inference_mode": False,  # inference mode would break autograd inside predict_step
    "use_distributed_sampler": False,  # the data module shards its batches
}


NO_EPOCHS = "each image has --model.steps steps of its own"
NOTHING_TRAINED = "nothing is trained or validated"
WITHOUT_EFFECT = {
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps"), NO_EPOCHS),
    **dict.fromkeys(
        ("gradient_clip_val", "gradient_clip_algorithm"), "the steps are Adam's, whose size no gradient's norm changes"
    ),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches"), NOTHING_TRAINED),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"), NOTHING_TRAINED),
    **dict.fromkeys(("accumulate_grad_batches", "reload_dataloaders_every_n_epochs", "sync_batchnorm"), NOTHING_TRAINED),
    **dict.fromkeys(("logger", "log_every_n_steps"), "the curves of every step are written to RUN/tensorboard"),
    **dict.fromkeys(("enable_checkpointing", "default_root_dir"), "a rerun goes on in --output"),
    "inference_mode": "refinement needs gradients",
    "use_distributed_sampler": "processes share the images by themselves",
}


class RefinementCLI(CommandLine):
    """Command line that builds the model, the data module and the trainer of a run of ``refine.py``.

    Args:
        args: Arguments of the command.
        parser_settings: Arguments of ``jsonargparse.ArgumentParser``.

    Raises:
        ValueError: The settings cannot be run.
    """

    description = "Refines images and writes bitstreams."
    config_help = f"A name of configs/refine ({', '.join(names())}; {DEFAULT_OF_JOBS} where none is given), or a file."

    without_effect = WITHOUT_EFFECT

    def __init__(self, args: Sequence[str], **parser_settings: Any) -> None:
        super().__init__(
            RefinementModule,
            RefinementDataModule,
            run=False,
            args=with_configs(args, lambda name: [str(config_file(name, CONFIGS))], DEFAULT_OF_JOBS),
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"allow_abbrev": False, **parser_settings},  # with_configs must see what is a --config
            seed_everything_default=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that belong to neither the model nor the data."""
        parser.add_argument("--output", type=Path, required=True, help="Folder of the run; a rerun goes on in it.")
        parser.add_argument("--seed", type=int, default=0, help="Seed of the noise; the same command gives the same files.")
        parser.add_argument("--compare", type=str | None, default=None, help="Image to draw side by side in comparison.png.")
        parser.link_arguments("seed", "model.seed")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer. Tasks of ``srun`` share the images and work independently, unless ``--trainer.strategy`` is given."""
        number, tasks = slurm.task()
        environment: ClusterEnvironment | None
        if tasks > 1 and self.config.trainer.strategy == "auto":
            environment = LightningEnvironment()
            environment.set_global_rank(0)  # each task is a group of its own; Lightning took the task's number for its rank
            if self.datamodule.shard is not None:
                raise ValueError("srun shares the images out by itself: leave out --data.shard")
            self.datamodule.shard = number, tasks
        else:
            environment = slurm.cluster_environment()
        if environment is not None:
            kwargs["plugins"] = [environment]
        trainer = super().instantiate_trainer(**kwargs)
        if isinstance(environment, slurm.SrunEnvironment):
            slurm.check_tasks(trainer.num_devices, trainer.num_nodes)
        if trainer.precision != "32-true":
            raise ValueError("--trainer.precision must stay 32-true: set the precision of the steps with --model.precision")
        return trainer

    def job(self) -> Job:
        """The job that the command line describes.

        Raises:
            ValueError: Its folder is the folder of the images.
        """
        output: Path = self.config.output
        if not output.is_file() and output.resolve() == Path(self.config.data.root).resolve():
            raise ValueError(f"--output {output}: is the folder of the images; give another folder")
        files, paths = self.datamodule.files, self.datamodule.paths
        return Job(
            output=output,
            settings=self.config.as_dict()["model"],
            module=self.model,
            files=files,
            beyond=[ImageFile(*named) for named in list(zip(unique_names(paths), paths, strict=True))[len(files) :]],
            shard=self.datamodule.shard,
            config=self.parser.dump(self.config, skip_validation=True),
            name="+".join(Path(path).stem for path in self.config.config or ()),
            compared=self.config.compare,
        )


class CheckedRefinement(RefinementCLI):
    """Command line that builds the model and the data of a run without a trainer, to check its options."""

    def instantiate_classes(self) -> None:
        """Builds the model and the data module, which check what the parser alone cannot."""
        self.config_init = self.parser.instantiate(self.config)
