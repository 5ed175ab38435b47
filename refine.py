"""Refines images and writes bitstreams: ``python refine.py --config fast --data.root DIR --output RUN``.

``--config`` is a name of ``configs/refine`` or the path of a file (default: ``balanced``).
"""

from __future__ import annotations

import sys

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

import lightning_modules.quiet  # noqa: F401  (before the project's other modules)
from data.refinement_data import RefinementDataModule
from lightning_modules import slurm
from lightning_modules.callbacks.refinement_curves import RefinementCurves
from lightning_modules.callbacks.refinement_progress import RefinementProgress
from lightning_modules.callbacks.result_writer import EndOnSigterm, ImageClaims, ResultWriter
from lightning_modules.job import Job
from lightning_modules.job_report import print_outcome, problem
from lightning_modules.refinement_cli import RefinementCLI
from lightning_modules.refinement_module import RefinementModule
from sga.cli import INTERRUPTED, TERMINATED, errors_in_one_line, fail


def main(args: list[str] | None = None, prog: str = "refine.py") -> int:
    """Runs the command; ``args`` are by default those of the process, ``prog`` is what the help calls it.

    Returns 0; ends the program with 1 where an image of this process's share is not finished or missed its target.
    """
    torch.backends.cudnn.allow_tf32 = False  # files are coded in full fp32
    torch.backends.cudnn.deterministic = True  # the same --seed gives the same files
    with errors_in_one_line(MisconfigurationException):
        slurm.check_variables()
        cli = RefinementCLI(sys.argv[1:] if args is None else args, prog=prog)
        work(cli.trainer, cli.model, cli.datamodule, cli.job())
    return 0


def work(trainer: pl.Trainer, module: RefinementModule, data: RefinementDataModule, job: Job) -> None:
    """Does what is left of a job, and reports it; ends the program with 1 where an image of the share is unfinished or wrong."""
    finished = data.finished = job.begin()
    if trainer.is_global_zero:
        job.write_config()
        if finished:
            left = len(job.share) - len(finished)
            print(f"{len(finished)} of {len(job.share)} images{job.of_shard} are finished in {job.output}; {left} to go")
    interrupted = refine(trainer, module, data, job) if len(finished) < len(job.share) else None
    if trainer.is_global_zero:  # other ranks' failures are in files, and the first reports them
        outcome = job.finish()
        print_outcome(job, outcome)
        wrong = problem(job, outcome, interrupted)
        if wrong is not None:
            fail(*wrong)


def refine(trainer: pl.Trainer, module: RefinementModule, data: RefinementDataModule, job: Job) -> int | None:
    """Refines the unfinished images of a job; returns the exit code of the signal that ended it early, else ``None``."""
    writers = [RefinementCurves(job.output), ResultWriter(job.output, job.fingerprint)]  # last: it marks an image as finished
    claims = ImageClaims(job.output)  # after the writers: an image is given back once its files are there
    trainer.callbacks += [RefinementProgress(), *writers, claims, EndOnSigterm()]  # type: ignore[attr-defined]
    try:
        trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.strategy.barrier()
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the first into the second
        return TERMINATED if stop.args == (TERMINATED,) else INTERRUPTED
    finally:
        claims.close()
    return None


if __name__ == "__main__":
    sys.exit(main())
