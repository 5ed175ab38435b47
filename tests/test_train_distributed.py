"""Several processes against one: the same global batch must give the same training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from tests.training import ROOT, STEPS, arguments, weights

LAUNCHERS = {
    "lightning": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"],
}


def settings(photographs: Path, output: Path, *more: str) -> list[str]:
    return arguments(photographs, output, "--data.valid", str(photographs), "--trainer.num_sanity_val_steps=0", *more)


@pytest.fixture(scope="module")
def one(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    output = tmp_path_factory.mktemp("one")
    train.main(settings(photographs, output, "--data.batch_size=4"))
    return output


def curve(output: Path, name: str) -> list[float]:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_as_one(launcher: str, photographs: Path, one: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    parts = settings(photographs, two, "--data.batch_size=2", "--trainer.devices=2", "--trainer.strategy=ddp")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = [*LAUNCHERS[launcher], "train.py", *parts]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    expected, found = weights(one / "last.ckpt"), weights(two / "last.ckpt")
    for name, value in expected.items():
        assert torch.allclose(value, found[name], rtol=1e-3, atol=1e-5), name
    for tag, length in (("train/loss", STEPS), ("train/psnr_db", STEPS), ("valid/rd_loss", STEPS // 2)):
        values = [curve(output, tag) for output in (one, two)]
        assert len(values[0]) == length and values[0] == pytest.approx(values[1], rel=1e-4)
