"""A run of ``train.py``: the checkpoint that it resumes from, the settings that it cannot change, and its end after a signal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from lightning_modules import slurm
from lightning_modules.callbacks.checkpointing import Stopped
from lightning_modules.training_module import TrainingModule
from sga.codecs.checkpoint import codec_spec

LAST, BEST = "last.ckpt", "best.ckpt"
LOCK = ".training.lock"
_HELD: dict[Path, BaseFileLock] = {}
"""Locks of this process: one that is not referred to is released."""

FIXED = (
    *("lmbda", "distortion", "optimiser", "schedule"),
    *("learning_rate", "final_learning_rate", "auxiliary_learning_rate", "warmup_steps"),
)
"""Settings of the module that a resumed run cannot change."""


def keep_others_out(output: Path) -> None:
    """Keeps other trainings out of a folder until :func:`let_others_in`, or this process ends; only the first rank does.

    The lock is the kernel's, so that it ends with the process however that ends, and holds across the machines of a cluster whose
    file system has locks. Where it has none, nobody is kept out.

    Raises:
        ValueError: Another training works in the folder.
    """
    if rank_zero_only.rank != 0 or output.resolve() in _HELD:  # type: ignore[attr-defined]
        return
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / LOCK, timeout=5)  # one that was just told to stop may be ending
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"--output {output}: another training works in it; wait for its end, or choose another folder") from None
    except NotImplementedError:
        return
    _HELD[output.resolve()] = lock


def let_others_in() -> None:
    """Ends what :func:`keep_others_out` began."""
    while _HELD:
        _, lock = _HELD.popitem()
        lock.release()


def checkpoint_to_measure(output: Path) -> Path:
    """Checkpoint of a run to test: the best by validation, or the last where there was no validation.

    Raises:
        ValueError: The run has no checkpoint.
    """
    for path in (output / BEST, output / LAST):
        if path.is_file():
            return path
    raise ValueError(f"{output} holds neither {BEST} nor {LAST}: give --output RUN, or --ckpt_path FILE")


def checkpoint_to_resume(resume: str, output: Path) -> Path | None:
    """Checkpoint that a run resumes from; ``None`` where it starts anew.

    Args:
        resume: ``auto``, ``never`` or a path. A job that Slurm has requeued resumes from its own last checkpoint in any case.
        output: Folder of the run; with ``never``, its last checkpoint is renamed to ``last.ckpt.old``.
    """
    last = output / LAST
    if last.is_file() and (resume == "auto" or slurm.is_requeued()):
        return last
    if resume == "never" and last.is_file():
        rank_zero_only(last.replace)(last.with_suffix(".ckpt.old"))
    return None if resume in {"auto", "never"} else Path(resume)


def check_same_training(checkpoint: Path, training: Mapping[str, Any], module: TrainingModule) -> None:
    """Refuses a checkpoint whose content, ``training``, is of another training than that of ``module``.

    Raises:
        ValueError: The codec or a setting of :data:`FIXED` differs.
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
    """Exit code after a signal; prints the step of the stopped run and, at Slurm's time limit, requeues the job."""
    if not stop.is_global_zero:
        return 0
    line = f"stopped by {stop.signum.name} at step {stop.step}, which {stop.checkpoint} holds"
    job = slurm.job_id()
    if stop.signum == signal.SIGUSR1 and job is not None:
        print(f"{line}: requeueing job {job}", file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to the running processes of a requeued job
        problem = slurm.requeue(job)
        if problem is None:
            return 0
        line = f"job {job} cannot be requeued ({problem}): submit it again"
    else:
        line += ": rerunning the command goes on from there"
    print(line, file=sys.stderr, flush=True)
    return int(128 + stop.signum)
