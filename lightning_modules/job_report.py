"""Report at the end of a job of ``refine.py``: tables, failures, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lightning_modules.job import Job, Outcome
from sga.pictures import draw_comparison
from sga.runs.folder import FAILURES
from sga.runs.results import read_result
from sga.runs.table import print_table

PRINTED = 50
"""Largest number of images in the printed table, and of printed failures; a table of more images has their means alone."""


def print_outcome(job: Job, outcome: Outcome) -> None:
    """Prints the table of a job that is over, or the progress of this process's share; then failures and missed targets.

    Also draws ``comparison.png`` where the job asks for it.
    """
    if outcome.summary is not None:
        _print_results(job, outcome.summary)
    else:
        done, count = len(job.share) - len(outcome.left), len(job.share)
        print(f"{done} of {count} images{job.of_shard} are finished in {job.output}; others are not yet")
        print("results.csv and summary.json are written by the process that finishes last, or by running one of them again")
    for name, message in list(outcome.failures.items())[:PRINTED]:
        print(f"failed: {name}: {message}", file=sys.stderr)
    if len(outcome.failures) > PRINTED:
        print(f"and {len(outcome.failures) - PRINTED} more: {job.output / FAILURES}", file=sys.stderr)
    for name, message in list(outcome.missed.items())[:PRINTED]:
        print(f"target missed: {name}: {message}", file=sys.stderr)


def problem(job: Job, outcome: Outcome, interrupted: int | None = None) -> tuple[str, int] | None:
    """Error message and exit code of a share that is unfinished or missed a target; ``None`` if all is well.

    Args:
        job: Job of this process.
        outcome: Outcome of the job.
        interrupted: Exit code of the signal that ended this process's work, if any.
    """
    count = len(job.share)
    unfinished = f"{len(outcome.left)} of {count} images{job.of_shard} are not finished"
    if outcome.held:
        unfinished += f"; another process is refining {len(outcome.held)} of them into {job.output} now"
    if interrupted:
        return f"interrupted; finished work is kept, {unfinished}", interrupted
    if outcome.left:
        return unfinished, 1
    if outcome.missed:
        another = "another try needs other settings (such as more --model.steps) and another --output"
        nearest = "their nearest files are written"
        return f"{len(outcome.missed)} of {count} images{job.of_shard} missed the target; {nearest}, and {another}", 1
    return None


def _print_results(job: Job, summary: Mapping[str, Any]) -> None:
    names = job.names
    found = (read_result(job.output, name) for name in names if len(names) <= PRINTED)
    print_table([result for result, _ in filter(None, found)], summary["means"])
    print(f"files and numbers: {job.output}    curves: tensorboard --logdir {job.output / 'tensorboard'}")
    compared = read_result(job.output, job.compared) if job.compared is not None else None
    if compared is not None:
        (original,) = (file.path for file in job.files if file.name == job.compared)
        print(f"picture: {draw_comparison(job.module.loaded, original, job.output, compared[0])}")
