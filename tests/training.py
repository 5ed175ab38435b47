"""What tests of training share: a training of seconds, and what its checkpoint holds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytorch_lightning as pl
import torch

ROOT = Path(__file__).parents[1]
STEPS = 6


def arguments(photographs: Path, output: Path, *more: str) -> list[str]:
    return [
        *("fit", "--config", str(ROOT / "configs/train/scale_hyperprior.yaml")),
        *("--data.root", str(photographs), "--data.crop_size=64", "--data.batch_size=2", "--data.workers=0"),
        *("--data.steps_per_epoch=2", f"--trainer.max_steps={STEPS}", "--trainer.log_every_n_steps=1", "--model.warmup_steps=2"),
        *("--model.codec.init_args.N=8", "--model.codec.init_args.M=12", "--trainer.enable_progress_bar=false"),
        *("--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", "--output", str(output)),
        *more,
    ]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


class Signal(pl.Callback):
    """Sends this process a signal after a step.

    Args:
        step: Optimiser steps done.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Stop(pl.Callback):
    """Ends the process's work in the middle of an epoch, as a kill would, after the checkpoint of that step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("killed")
