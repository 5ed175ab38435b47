"""Keeps ``last.ckpt``: at regular steps and times, when a signal stops the run, and at the end."""

from __future__ import annotations

import io
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from sga.codecs.checkpoint import CheckpointError
from sga.codecs.checkpoint_files import load_inert
from sga.files import write_atomically

NOTHING, SAVE = 0, 1
WISHES = {signal.SIGINT: 2, signal.SIGTERM: 3, signal.SIGUSR1: 4}
"""Priority of each signal when ranks agree; the highest wins. SIGUSR1 warns of the time limit and outranks the SIGTERM after it."""

LOOK_EVERY = 5
"""Optimiser steps between two agreements of several ranks."""


class Stopped(SystemExit):
    """A signal ended the training between two batches, on every rank.

    Attributes:
        signum: Signal that ended it.
        step: Optimiser steps done.
        checkpoint: File that holds the training after those steps.
        is_global_zero: Whether this rank is the first.
    """

    def __init__(self, signum: signal.Signals, step: int, checkpoint: Path, is_global_zero: bool) -> None:
        super().__init__(128 + signum)
        self.signum, self.step, self.checkpoint, self.is_global_zero = signum, step, checkpoint, is_global_zero


class LastCheckpoint(Checkpoint):
    """Callback that rewrites one checkpoint file; a run that is killed loses the steps after the latest checkpoint.

    SIGUSR1 (Slurm's warning before the time limit), SIGTERM (preemption, scancel) and SIGINT (Ctrl-C) end the run between two
    batches, after a checkpoint, by raising :class:`Stopped`. A signal may reach ranks at different steps, so they agree on it
    every :data:`LOOK_EVERY` steps. A second Ctrl-C ends the run at once.

    Where a validation follows a batch, and at the end of an epoch, nothing is written: a checkpoint that is due is written one
    batch later, so that it holds what the validation led to (the best checkpoint, the plateau of the learning rate).
    The file takes its name when the next batch begins: only then has Lightning logged the values of the step that it holds. If
    it had its name earlier, a run that is killed in between would lack those values in its curves.

    Args:
        path: File of the checkpoint.
        every_steps: Optimiser steps between two writings.
        every_minutes: Longest time between two writings, in minutes.

    Raises:
        ValueError: A period is not above 0.
    """

    def __init__(self, path: Path, every_steps: int, every_minutes: float) -> None:
        if every_steps < 1 or not every_minutes > 0:
            raise ValueError("checkpoint_every must be at least 1 and checkpoint_minutes above 0")
        self.path, self.every_steps, self.every_minutes = Path(path), every_steps, every_minutes
        self._unnamed = self.path.with_name(f"{self.path.name}.part")
        self._wish = self._agreed = NOTHING
        self._step, self._due, self._saved_at, self._is_unnamed = 0, False, 0.0, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._wish = self._agreed = NOTHING
        self._step, self._due, self._saved_at = trainer.global_step, False, time.monotonic()
        # Lightning has set its own handlers by now; its SIGTERM handler communicates with other ranks in the middle of a step.
        # At the end it restores the handlers from before its own.
        for signum in WISHES:
            signal.signal(signum, self._remember)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # gradients are being accumulated
        self._step = step
        self._agreed = max(self._agreed, self._agree(trainer))
        self._due = self._due or self._agreed > NOTHING or step % self.every_steps == 0
        if self._due and not _validation_follows(trainer, batch_idx):
            self._save(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        # Not at the end of the previous batch: its values were not logged yet.
        self._name(trainer)
        if self._agreed > SAVE and not self._due:
            (signum,) = (signum for signum, wish in WISHES.items() if wish == self._agreed)
            raise Stopped(signum, self._step, self.path, trainer.is_global_zero)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        self._name(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._name(trainer)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: notes the signal and nothing more, since Python runs it between any two instructions."""
        self._wish = max(self._wish, WISHES[signal.Signals(signum)])
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _agree(self, trainer: pl.Trainer) -> int:
        """The highest priority (:data:`WISHES`) among all ranks."""
        several = trainer.world_size > 1
        if several and trainer.global_step % LOOK_EVERY:
            return NOTHING
        # The first rank's clock decides for all: a checkpoint takes every rank.
        late = trainer.is_global_zero and time.monotonic() - self._saved_at > 60 * self.every_minutes
        wish = max(self._wish, SAVE if late else NOTHING)
        if several:
            shared = torch.tensor(wish, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
            wish = int(shared)
        return wish

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved_at, self._due = time.monotonic(), False
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # a trial leaves nothing behind
            trainer.save_checkpoint(self._unnamed)
            self._is_unnamed = True
        if self._agreed == SAVE:
            self._agreed = NOTHING

    def _name(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and self._is_unnamed:
            for logger in trainer.loggers:
                logger.save()
            self._unnamed.replace(self.path)
        self._is_unnamed = False


def _validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a validation, or the end of an epoch, comes before the next batch; resuming in between, Lightning leaves it out.

    Where it comes after every batch it counts as never: there is no later batch to wait for.
    """
    if trainer.is_last_batch:
        return trainer.num_training_batches > 1
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if every in (None, 1, math.inf):
        return False
    if epochs is None:  # counted over epochs
        return (trainer.fit_loop.total_batch_idx + 1) % int(every) == 0
    return (trainer.current_epoch + 1) % epochs == 0 and (batch_idx + 1) % int(every) == 0


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint writer that writes a temporary file beside the old one and renames it: a killed process or a full disk leaves the
    previous checkpoint whole, and nothing else."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: It cannot be written; the error names ``path``.
        """
        content = io.BytesIO()  # torch does not say why it cannot write to a file
        torch.save(checkpoint, content)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), content.getbuffer())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def read_training(checkpoint: Path) -> Mapping[str, Any]:
    """Content of a training's checkpoint: ``global_step``, ``codec``, ``hyper_parameters`` and Lightning's own entries.

    Raises:
        CheckpointError: The file is missing, holds other than tensors and plain types, or is no checkpoint of ``train.py fit``.
    """
    if not checkpoint.is_file():
        raise CheckpointError(f"no such checkpoint: {checkpoint}")
    content = load_inert(checkpoint)
    if not isinstance(content, Mapping) or not isinstance(content.get("global_step"), int):
        raise CheckpointError(f"{checkpoint} is no checkpoint of train.py fit: give another with --resume (fit) or --ckpt_path")
    return content
