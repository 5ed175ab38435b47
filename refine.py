"""Refines images and writes bitstreams: ``python refine.py --config configs/refine/ssl.yaml --data.root DIR --output RUN``."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import lightning_modules.startup  # noqa: F401  (before the project's other modules)
from data.images import read_image
from data.refinement_data import RefinementDataModule
from lightning_modules.bitstream import decode_image
from lightning_modules.callbacks.curves import RefinementCurves
from lightning_modules.callbacks.images import side_by_side
from lightning_modules.callbacks.progress import RefinementProgress
from lightning_modules.callbacks.results import ResultWriter
from lightning_modules.cli import INTERRUPTED, errors_in_one_line, fail
from lightning_modules.refinement_module import RefinementModule
from lightning_modules.results import (
    BASE_BITSTREAMS,
    BITSTREAMS,
    IMAGES,
    ImageResult,
    format_psnr,
    print_table,
    read_results,
    summarise,
)

TRAINER_DEFAULTS = {
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
        parser.add_argument("--seed", type=int, default=0, help="Of the noise; a run with it repeats to the bit.")
        parser.add_argument("--compare", type=str | None, default=None, help="Image to draw side by side as comparison.png.")
        parser.link_arguments("seed", "model.seed")


def main(args: list[str] | None = None) -> int:
    """Runs the command (``args``: of it, by default the process's); 0, or 1 where an image failed."""
    torch.backends.cudnn.allow_tf32 = False  # "fp32" below means it
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
        names, finished, mark = prepare(cli)
        writers = [RefinementCurves(cli.config.output), ResultWriter(cli.config.output, mark)]  # the mark of a finished image last
        cli.trainer.callbacks += [RefinementProgress(), *writers]  # type: ignore[attr-defined]
        interrupted = False
        if len(finished) < len(names):
            try:
                cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
                cli.trainer.strategy.barrier()
            except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
                interrupted = True
        # Other ranks' failures are in files, and the first reports them.
        return report(cli, names, interrupted) if cli.trainer.is_global_zero else 0


def prepare(cli: RefinementCLI) -> tuple[list[str], set[str], str]:
    """Checks the job against what is in its folder: names of all images, of the finished ones, and the job's fingerprint.

    Raises:
        ValueError: The settings cannot be run, or the folder holds results of others.
    """
    output: Path = cli.config.output
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: is a file, not a folder")
    if cli.trainer.precision != "32-true":
        raise ValueError("--trainer.precision must stay 32-true: --model.precision is that of the steps")
    cli.datamodule.exclude(output)
    files = cli.datamodule.files
    names = [file.name for file in files]
    if cli.config.compare is not None and cli.config.compare not in names:
        raise ValueError(f"--compare {cli.config.compare}: no such image (the first are {', '.join(names[:5])})")
    mark = fingerprint(cli)
    results = read_results(output)
    finished: set[str] = set()
    for file in files:
        if file.name not in results:
            continue
        _, content = results[file.name]
        if content.get("fingerprint") != mark:
            raise ValueError(f"{output} holds results of other settings ({file.name}): choose another --output")
        if content.get("source") != file.sha256():
            json_file = output / IMAGES / f"{file.name}.json"
            raise ValueError(
                f"{output} holds the result of another image {file.name}: choose another --output, or delete {json_file}"
            )
        finished.add(file.name)
    cli.datamodule.finished = frozenset(finished)
    output.mkdir(parents=True, exist_ok=True)
    if cli.trainer.is_global_zero:
        cli.parser.save(cli.config, output / "config.yaml", overwrite=True, skip_validation=True)
        if finished:
            print(f"{len(finished)} of {len(names)} images are finished in {output}; {len(names) - len(finished)} to go")
    return names, finished, mark


def fingerprint(cli: RefinementCLI) -> str:
    """Names what decides a result: the settings of the model and its weights. Two runs of one fingerprint agree."""
    settings: dict[str, Any] = {"model": cli.config.as_dict()["model"], "weights": cli.model.loaded.model_hash.hex()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def report(cli: RefinementCLI, names: list[str], interrupted: bool) -> int:
    """Writes the summary, prints the table and the failures; 1 where an image is not finished."""
    output: Path = cli.config.output
    results = {name: result for name, (result, _) in read_results(output).items()}
    summary = summarise(output, names, results)
    print_table([results[name] for name in names if name in results])
    print(f"files and numbers: {output}    curves: tensorboard --logdir {output / 'tensorboard'}")
    if cli.config.compare in results:
        print(f"picture: {compare(cli, results[cli.config.compare])}")
    for name, message in summary["failures"].items():
        print(f"failed: {name}: {message}", file=sys.stderr)
    unfinished = f"{len(names) - summary['finished']} of {len(names)} images are not finished"
    if interrupted:
        fail(f"interrupted; finished work is kept, {unfinished}", INTERRUPTED)
    if summary["finished"] < len(names):
        fail(unfinished, 1)
    return 0


def compare(cli: RefinementCLI, result: ImageResult) -> Path:
    """Draws an image of the run from its files: original, base and refined, with bpp and PSNR."""
    output: Path = cli.config.output
    (original,) = (file.path for file in cli.datamodule.files if file.name == result.image)
    panels = {"original": read_image(original)}
    for caption, folder, bpp, psnr_db in (
        ("base", BASE_BITSTREAMS, result.bpp_base, result.psnr_db_base),
        ("refined", BITSTREAMS, result.bpp, result.psnr_db),
    ):
        decoded = decode_image(cli.model.loaded, (output / folder / f"{result.image}.bin").read_bytes())
        panels[f"{caption}: {bpp:.4f} bpp, {format_psnr(psnr_db)}"] = decoded
    path = output / "comparison.png"
    side_by_side(panels, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
