"""A refinement that is killed before each of its file operations in turn, and run again."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from torch import Tensor

import refine
from benchmarks.killing import contents, dies_at, in_a_process
from data.refinement_data import RefinementDataModule
from lightning_modules.job import Job
from lightning_modules.refinement_cli import TRAINER_DEFAULTS
from lightning_modules.refinement_module import RefinementModule
from sga.codecs import ScaleHyperpriorCodec
from sga.codecs.export import export_safetensors
from sga.files import TEMPORARY
from sga.images import write_image
from sga.refinement.rounding import AtanhRounding
from sga.refinement.schedules import Constant

EVERY = int(os.environ.get("KILL_EVERY", "10"))
"""Operations between two kills: 1 tries every one, which takes many minutes."""


@pytest.fixture
def module(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> RefinementModule:
    export_safetensors(small_codec, tmp_path / "codec.safetensors", {"lmbda": "0.013", "distortion": "mse"})
    # No steps: gradients do not survive a fork. benchmarks/kill_refinement.py takes some, of many images.
    return RefinementModule(str(tmp_path / "codec.safetensors"), steps=0, rounding=AtanhRounding(), temperature=Constant(0.3))


@pytest.fixture
def photos(crop: Tensor, tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(2):
        write_image(crop.roll(i, -1), tmp_path / f"photos/{i}.png")
    return tmp_path / "photos"


def test_a_refinement_that_is_killed_anywhere_and_run_again_is_as_if_it_was_not(
    module: RefinementModule, photos: Path, tmp_path: Path
) -> None:
    def run(output: Path) -> None:
        data = RefinementDataModule(str(photos))
        trainer = pl.Trainer(**{**TRAINER_DEFAULTS, "accelerator": "cpu"})  # type: ignore[arg-type]
        refine.work(trainer, module, data, Job(output, {"steps": 0}, module, data.files, config="seed: 0\nmodel: {}\n"))

    def killed(output: Path, number: int) -> None:
        dies_at(number, output)
        run(output)

    assert in_a_process(lambda: run(tmp_path / "whole")) == 0
    expected = contents(tmp_path / "whole")
    assert len(expected["results.csv"]) == 2 and not any(TEMPORARY in name or name.endswith(".lock") for name in expected)
    output, number, left = tmp_path / "run", 0, 0
    while (status := in_a_process(partial(killed, output, number))) != 0:
        assert status == -signal.SIGKILL
        left += any(output.glob(f"images/{TEMPORARY}*"))
        assert in_a_process(lambda: run(output)) == 0, number
        assert contents(output) == expected, number
        shutil.rmtree(output)
        number += EVERY
    assert contents(output) == expected
    assert number >= 50 and (left or EVERY > 1)  # some of them left a temporary file to sweep
