"""What tests of stopped runs add to a training."""

from __future__ import annotations

import os
import signal
import time

import pytorch_lightning as pl


class Slow(pl.Callback):
    """Callback that makes steps long enough for a signal to arrive; rank ``SIGNAL_RANK`` sends one to itself after the sixth.

    ``SLOW_SECONDS``: seconds added per step.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        time.sleep(float(os.environ.get("SLOW_SECONDS", "0.2")))
        if trainer.global_step == 6 and os.environ.get("SIGNAL_RANK") == str(trainer.global_rank):
            os.kill(os.getpid(), signal.SIGTERM)


class DieInValidation(pl.Callback):
    """Callback that raises in the validation after the fourth step, as a crash would."""

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 4:
            raise RuntimeError("killed")
