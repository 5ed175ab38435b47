"""Refines images and writes bitstreams: ``python refine.py --config configs/refine/ssl.yaml --data.root DIR --output RUN``."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import lightning_modules.startup  # noqa: F401  (first)
from data.refinement_data import RefinementDataModule
from lightning_modules.callbacks.curves import RefinementCurves
from lightning_modules.callbacks.images import Comparison
from lightning_modules.callbacks.progress import RefinementProgress
from lightning_modules.callbacks.results import ResultWriter
from lightning_modules.cli import errors_in_one_line, fail
from lightning_modules.refinement_module import RefinementModule
from lightning_modules.results import print_table, read_results, summarise

TRAINER_DEFAULTS = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "inference_mode": False,  # it would break autograd inside predict_step
}


class RefinementCLI(LightningCLI):
    """The command line: model, data, trainer, and the folder of the run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to neither model nor data."""
        parser.add_argument("--output", type=Path, required=True, help="Folder of the run; a rerun goes on in it.")
        parser.add_argument("--compare", type=str | None, default=None, help="Image to draw side by side as comparison.png.")


def main(args: list[str] | None = None) -> int:
    """Runs the command (``args``: of it, by default the process's); 0, or 1 where an image failed."""
    with errors_in_one_line():
        cli = RefinementCLI(
            RefinementModule,
            RefinementDataModule,
            run=False,
            args=args,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=False,
        )
        output: Path = cli.config.output
        mark = fingerprint(cli)
        finished = finished_images(output, mark)
        cli.datamodule.finished = frozenset(finished)
        output.mkdir(parents=True, exist_ok=True)
        if cli.trainer.is_global_zero:
            cli.parser.save(cli.config, output / "config.yaml", overwrite=True, skip_validation=True)
        writers = [ResultWriter(output, mark), RefinementCurves(output), Comparison(output, cli.config.compare)]
        cli.trainer.callbacks += [RefinementProgress(), *writers]  # type: ignore[attr-defined]
        names = [file.name for file in cli.datamodule.files]
        left = len(set(names) - finished)
        if left < len(names):
            print(f"{len(names) - left} of {len(names)} images are finished in {output}; {left} to go")
        if left:
            cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
        return report(cli, names) if cli.trainer.is_global_zero else int(bool(cli.model.failures))


def fingerprint(cli: RefinementCLI) -> str:
    """Names what decides a result: the settings of the model and its weights. Two runs of one fingerprint agree."""
    settings = {"model": cli.config.as_dict()["model"], "weights": cli.model.loaded.model_hash.hex()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def finished_images(output: Path, mark: str) -> set[str]:
    """Names of the images that a run has finished.

    Raises:
        ValueError: The folder holds results of other settings.
    """
    results = read_results(output)
    other = [name for name, (_, of) in results.items() if of != mark]
    if other:
        raise ValueError(
            f"{output} holds results of other settings ({other[0]} and {len(other) - 1} more): choose another --output"
        )
    return set(results)


def report(cli: RefinementCLI, names: list[str]) -> int:
    """Writes the summary, prints the table and the failures; 1 where an image is not finished."""
    output: Path = cli.config.output
    summary = summarise(output, names)
    results = read_results(output)
    print_table([results[name][0] for name in names if name in results])
    for name, message in summary["failures"].items():
        print(f"failed: {name}: {message}", file=sys.stderr)
    print(f"files and numbers: {output}    curves: tensorboard --logdir {output / 'tensorboard'}")
    if (output / "comparison.png").is_file():
        print(f"picture: {output / 'comparison.png'}")
    if summary["finished"] < len(names):
        fail(f"{len(names) - summary['finished']} of {len(names)} images are not finished", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
