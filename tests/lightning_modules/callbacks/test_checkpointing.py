from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.callbacks.checkpointing import LastCheckpoint, Stopped


class Small(pl.LightningModule):
    """A linear regression, validated by something that its training does not lower."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("loss", self.layer(batch[0]).mean() + 0.1 * self.global_step)  # the first validation is the best

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Stop(pl.Callback):
    """Sends this process a signal at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def fit(folder: Path, stop: int | None = None, resume: bool = False, **options: Any) -> tuple[Tensor, Any]:
    """Weights, and score and name of the best checkpoint, after 16 steps of 8 an epoch."""
    best = ModelCheckpoint(folder, "best", monitor="loss")
    last = LastCheckpoint(folder / "last.ckpt", every_steps=4, every_minutes=1e6)
    callbacks: list[pl.Callback] = [last, best, *([] if stop is None else [Stop(stop)])]
    trainer = pl.Trainer(
        max_steps=16, callbacks=callbacks, logger=False, enable_progress_bar=False, enable_model_summary=False, **options
    )
    x = torch.tensor([[0.5, -1.0, 2.0]]).repeat(8, 1)  # equal batches: Lightning begins an epoch anew where it was stopped
    loader = DataLoader(TensorDataset(x), batch_size=1)
    module = Small()
    kept = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        trainer.fit(module, loader, loader, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    finally:
        for signum, handler in kept.items():
            signal.signal(signum, handler)
    score = float(best.best_model_score) if best.best_model_score is not None else None
    return module.layer.weight.detach().clone(), (score, Path(best.best_model_path).name)


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 4}, {"val_check_interval": 3, "check_val_every_n_epoch": None}])
@pytest.mark.parametrize("stop", [3, 4, 7, 8, 12])
def test_a_training_stopped_at_any_step_ends_as_one_that_was_not(stop: int, options: dict[str, Any], tmp_path: Path) -> None:
    weights, others = fit(tmp_path / "whole", **options)
    with pytest.raises(Stopped):
        fit(tmp_path / "stopped", stop, **options)
    again, others_again = fit(tmp_path / "stopped", resume=True, **options)
    assert torch.equal(again, weights)
    assert others_again == others and others[0] is not None


def test_a_trial_run_writes_no_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path, fast_dev_run=3)
    assert not list(tmp_path.iterdir())
