"""Refines images and writes bitstreams: ``python refine.py --config fast --data.root DIR --output RUN``.

``--config`` is a name of ``configs/refine`` or the path of a file; without it, it is ``balanced``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import lightning_modules.quiet  # noqa: F401  (before the project's other modules)
from data.refinement_data import RefinementDataModule
from lightning_modules import slurm
from lightning_modules.callbacks.progress import RefinementProgress
from lightning_modules.callbacks.refinement_curves import RefinementCurves
from lightning_modules.callbacks.result_writer import EndOnSigterm, ResultWriter
from lightning_modules.hparams import settings_row, write_hparams
from lightning_modules.job import ACCELERATOR
from lightning_modules.refinement_module import RefinementModule
from sga.cli import INTERRUPTED, TERMINATED, errors_in_one_line, fail
from sga.files import write_atomically
from sga.pictures import draw_comparison
from sga.refinement.presets import with_config
from sga.runs.folder import CONFIG, FAILURES, IMAGES, claim, names_with_results, read_failures
from sga.runs.results import read_result
from sga.runs.summary import summarise
from sga.runs.table import print_table

PRINTED = 50
"""Images and failures that are printed one by one; of more, the table is that of the means."""

TRAINER_DEFAULTS = {
    "accelerator": ACCELERATOR,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "inference_mode": False,  # it would break autograd inside predict_step
    "use_distributed_sampler": False,  # the data module shards its batches
}


class RefinementCLI(LightningCLI):
    """The command line: model, data, trainer, and the folder of the run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to neither model nor data."""
        parser.add_argument("--output", type=Path, required=True, help="Folder of the run; a rerun goes on in it.")
        parser.add_argument("--seed", type=int, default=0, help="Of the noise; the same command repeats to the bit.")
        parser.add_argument("--compare", type=str | None, default=None, help="Image to draw side by side as comparison.png.")
        parser.link_arguments("seed", "model.seed")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Under ``srun``, tasks share the images and know nothing of one another, unless a strategy makes one group of them."""
        number, tasks = slurm.task()
        environment: ClusterEnvironment | None
        if tasks > 1 and self.config.trainer.strategy == "auto":
            environment = LightningEnvironment()
            environment.set_global_rank(0)  # each is the first of its own; Lightning took the task's number for it
            if self.datamodule.shard is not None:
                raise ValueError("srun shares the images out by itself: leave --data.shard away")
            self.datamodule.shard = number, tasks
        else:
            environment = slurm.cluster_environment()
        if environment is not None:
            kwargs["plugins"] = [environment]
        trainer = super().instantiate_trainer(**kwargs)
        if isinstance(environment, slurm.SrunEnvironment):
            slurm.check_tasks(trainer.num_devices, trainer.num_nodes)
        return trainer


def main(args: list[str] | None = None) -> int:
    """Runs the command (``args``: of it, by default the process's); 0, or 1 where an image failed or missed its target."""
    torch.backends.cudnn.allow_tf32 = False  # "fp32" below means it
    torch.backends.cudnn.deterministic = True  # --seed repeats a run
    with errors_in_one_line(MisconfigurationException):
        cli = RefinementCLI(
            RefinementModule,
            RefinementDataModule,
            run=False,
            args=with_config(sys.argv[1:] if args is None else args),
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"allow_abbrev": False},  # with_config must see what is a --config
            seed_everything_default=False,
        )
        names, mark = prepare(cli)
        writers = [RefinementCurves(cli.config.output), ResultWriter(cli.config.output, mark)]  # the mark of a finished image last
        cli.trainer.callbacks += [RefinementProgress(), *writers, EndOnSigterm()]  # type: ignore[attr-defined]
        interrupted: int | None = None
        if len(cli.datamodule.finished) < len(cli.datamodule.share):
            try:
                cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
                cli.trainer.strategy.barrier()
            except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the first into the second
                interrupted = TERMINATED if stop.args == (TERMINATED,) else INTERRUPTED
        # Other ranks' failures are in files, and the first reports them.
        return report(cli, names, mark, interrupted) if cli.trainer.is_global_zero else 0


def prepare(cli: RefinementCLI) -> tuple[list[str], str]:
    """Checks this process's share against what is in the folder of the job: names of all images, and the job's fingerprint.

    Raises:
        ValueError: The settings cannot be run, or the folder holds results of others.
    """
    output: Path = cli.config.output
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: is a file, not a folder")
    if cli.trainer.precision != "32-true":
        raise ValueError("--trainer.precision must stay 32-true: --model.precision is that of the steps")
    files = cli.datamodule.files
    names = [file.name for file in files]
    if cli.config.compare is not None and cli.config.compare not in names:
        raise ValueError(f"--compare {cli.config.compare}: no such image (the first are {', '.join(names[:5])})")
    if output.resolve() == Path(cli.config.data.root).resolve():
        raise ValueError(f"--output {output}: is the folder of the images; give one of its own")
    mark, foreign = fingerprint(cli), False
    finished: set[str] = set()
    share = cli.datamodule.share
    for file in share:
        found = read_result(output, file.name)
        if found is None:
            continue
        _, content = found
        foreign = foreign or content.get("fingerprint") != mark
        if not foreign and content.get("source") != file.sha256():
            json_file = output / IMAGES / f"{file.name}.json"
            raise ValueError(
                f"{output} holds the result of another image {file.name}: choose another --output, or delete {json_file}"
            )
        finished.add(file.name)
    if foreign or not claim(output, mark):
        raise ValueError(refusal(cli))
    cli.datamodule.finished = frozenset(finished)
    if cli.trainer.is_global_zero:
        write_atomically(output / CONFIG, cli.parser.dump(cli.config, skip_validation=True).encode())
        if finished:
            left = len(share) - len(finished)
            print(f"{len(finished)} of {len(share)} images{of_shard(cli)} are finished in {output}; {left} to go")
    return names, mark


def of_shard(cli: RefinementCLI) -> str:
    """For messages: which images are meant."""
    return " of shard {}/{}".format(*cli.datamodule.shard) if cli.datamodule.shard else ""


def fingerprint(cli: RefinementCLI) -> str:
    """Names what decides a result: the settings of the model and its weights, wherever they lie."""
    model, objective = cli.model, cli.model.objective
    settings: dict[str, Any] = cli.config.as_dict()["model"]
    settings |= {"checkpoint": model.loaded.model_hash.hex(), "lmbda": objective.lmbda, "distortion": objective.distortion}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def refusal(cli: RefinementCLI) -> str:
    """Why a job cannot go on in a folder of other settings, with the options that differ where that can be told."""
    output: Path = cli.config.output
    options = different_options(cli)
    if names_with_results(output):
        return f"{output} holds results of other settings{options}: choose another --output"
    ended = "or delete the folder if that job has ended"
    return f"{output} is that of a job of other settings{options}, without results yet: choose another --output, {ended}"


def different_options(cli: RefinementCLI) -> str:
    """In brackets, the options that differ from those in the folder of the job; empty where that cannot be told."""
    try:
        contents = (cli.config.output / CONFIG).read_text(), cli.parser.dump(cli.config, skip_validation=True)
        settings = [yaml.safe_load(content) for content in contents]
        there, here = ({"seed": one["seed"], **{f"model.{key}": value for key, value in one["model"].items()}} for one in settings)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return ""
    names = [f"--{name}" for name in {**there, **here} if there.get(name) != here.get(name)]
    return f" ({', '.join(names)})" if names else ""


def report(cli: RefinementCLI, names: list[str], mark: str, interrupted: int | None) -> int:
    """Prints what became of this process's share, and of the whole job where no other process is at work on it.

    Returns 0; ends the program with 1 where an image of the share is not finished or missed its target, with ``interrupted``
    after a signal.
    """
    output: Path = cli.config.output
    share = [file.name for file in cli.datamodule.share]
    left = [name for name in share if read_result(output, name) is None]
    others = set(names).difference(share, names_with_results(output))
    if len(read_failures(output, others)) == len(others):
        failures = report_job(cli, names, mark)
    else:
        failures = read_failures(output, left)
        print(f"{len(share) - len(left)} of {len(share)} images{of_shard(cli)} are finished in {output}; others are not yet")
        print("results.csv and summary.json are written by the process that finishes last, or by running one of them again")
    for name, message in list(failures.items())[:PRINTED]:
        print(f"failed: {name}: {message}", file=sys.stderr)
    if len(failures) > PRINTED:
        print(f"and {len(failures) - PRINTED} more: {output / FAILURES}", file=sys.stderr)
    missed = targets_missed(cli)
    for name, message in list(missed.items())[:PRINTED]:
        print(f"target missed: {name}: {message}", file=sys.stderr)
    unfinished = f"{len(left)} of {len(share)} images{of_shard(cli)} are not finished"
    if interrupted:
        fail(f"interrupted; finished work is kept, {unfinished}", interrupted)
    if left:
        fail(unfinished, 1)
    if missed:
        another = "another try needs other settings (such as more --model.steps) and another --output"
        nearest = "their nearest files are written"
        fail(f"{len(missed)} of {len(share)} images{of_shard(cli)} missed the target; {nearest}, and {another}", 1)
    return 0


def targets_missed(cli: RefinementCLI) -> dict[str, str]:
    """The finished images of the share whose files are not what was asked for, each with a line."""
    target = cli.model.target
    found = (read_result(cli.config.output, file.name) for file in cli.datamodule.share) if target is not None else ()
    return {
        result.image: target.missed(result.refined.bpp, result.refined.psnr_db)
        for result, _ in filter(None, found)
        if not target.reached(result.refined.bpp, result.refined.psnr_db)
    }


def report_job(cli: RefinementCLI, names: list[str], mark: str) -> dict[str, str]:
    """Writes the summary of all images and prints the table; returns the failures."""
    output: Path = cli.config.output
    summary = summarise(output, names, mark)
    found = (read_result(output, name) for name in names if len(names) <= PRINTED)
    print_table([result for result, _ in filter(None, found)], summary["means"])
    if summary["finished"]:
        config = "+".join(Path(path).stem for path in cli.config.config or ())
        write_hparams(output, settings_row(cli.model, config, cli.config.model.checkpoint), summary["means"])
    print(f"files and numbers: {output}    curves: tensorboard --logdir {output / 'tensorboard'}")
    compared = read_result(output, cli.config.compare) if cli.config.compare is not None else None
    if compared is not None:
        (original,) = (file.path for file in cli.datamodule.files if file.name == cli.config.compare)
        print(f"picture: {draw_comparison(cli.model.loaded, original, output, compared[0])}")
    failures: dict[str, str] = summary["failures"]
    return failures


if __name__ == "__main__":
    sys.exit(main())
