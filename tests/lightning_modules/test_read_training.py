from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import train
from lightning_modules.callbacks.checkpointing import read_training
from sga.codecs.checkpoint import CheckpointError


class Executes:
    """Creates a folder when its pickle is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_executes_nothing_of_the_checkpoint_that_it_goes_on_from(zipped: bool, tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "last.ckpt"
    torch.save({"global_step": 3, "state_dict": {}, "x": Executes(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"holds more than weights, .*mkdir.*none was run"):
        read_training(path)
    with pytest.raises(SystemExit) as stop:
        train.main(["fit", "--config", "scale_hyperprior/mse_4", "--output", str(tmp_path / "run"), "--resume", str(path)])
    assert stop.value.code == 2 and not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file would not have run anything"


def test_what_is_no_training_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for content in ({"state_dict": {}}, {"global_step": "3"}, [3]):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"is no checkpoint of train\.py fit: give another with --resume"):
            read_training(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        read_training(path)
