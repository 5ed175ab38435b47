"""A training that is killed before each file operation of its checkpoints in turn, or meets a full disk, and is run again."""

from __future__ import annotations

import resource
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.killing import dies_at, in_a_process
from lightning_modules.callbacks.checkpointing import AtomicCheckpointIO, LastCheckpoint
from sga.files import TEMPORARY

STEPS = 12


class Counter(pl.LightningModule):
    """Counts its steps without a gradient: gradients do not survive a fork. Every second validation is a new best."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.layer.weight)

    def training_step(self, batch: list[Tensor]) -> None:
        self.optimizers().step()  # type: ignore[union-attr]  # which counts it
        self.layer.weight.data += 1

    def validation_step(self, batch: list[Tensor]) -> None:
        count = float(self.layer.weight)
        self.log("loss", torch.tensor(-count if count % 8 < 4 else count))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(folder: Path) -> None:
    """12 steps, with a checkpoint after every second, and a validation after every fourth; goes on from ``last.ckpt``."""
    last = folder / "last.ckpt"
    best = ModelCheckpoint(folder, "best", monitor="loss", enable_version_counter=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=[LastCheckpoint(last, every_steps=2, every_minutes=1e6), best],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(torch.zeros(4, 1)))
    trainer.fit(Counter(), loader, loader, ckpt_path=last if last.is_file() else None, weights_only=True)


def contents(folder: Path) -> dict[str, tuple[int, float]]:
    """Steps and weight of each checkpoint in a folder, by its name; other files stand for nothing."""
    found = {}
    for path in folder.iterdir():
        checkpoint = torch.load(path, weights_only=True)
        found[path.name] = (checkpoint["global_step"], float(checkpoint["state_dict"]["layer.weight"]))
    return found


def test_a_training_that_is_killed_anywhere_and_run_again_is_as_if_it_was_not(tmp_path: Path) -> None:
    def killed(folder: Path, number: int) -> None:
        dies_at(number, folder)
        fit(folder)

    whole, folder, number, left = tmp_path / "whole", tmp_path / "run", 0, 0
    assert in_a_process(partial(fit, whole)) == 0
    expected = contents(whole)
    assert expected == {"last.ckpt": (12, 12.0), "best.ckpt": (8, 8.0)}
    while (status := in_a_process(partial(killed, folder, number))) != 0:
        assert status == -signal.SIGKILL
        left += any(folder.glob(f"{TEMPORARY}*"))
        if (folder / "last.ckpt").exists():
            torch.load(folder / "last.ckpt", weights_only=True)
        assert in_a_process(partial(fit, folder)) == 0, number
        assert contents(folder) == expected, number
        shutil.rmtree(folder)
        number += 1
    assert contents(folder) == expected
    assert number > 30 and left > 5  # operations, and kills that left a temporary file to sweep


def test_a_disk_that_is_full_leaves_the_previous_checkpoint_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"

    def task() -> None:
        AtomicCheckpointIO().save_checkpoint({"global_step": 1}, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # what is written beyond fails, as on a full disk
        with pytest.raises(OSError, match="File too large") as raised:
            AtomicCheckpointIO().save_checkpoint({"global_step": 2, "state": torch.zeros(10_000)}, path)
        assert raised.value.filename == str(path)

    assert in_a_process(task) == 0
    assert torch.load(path, weights_only=True) == {"global_step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
