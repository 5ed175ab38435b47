"""``codec.py encode``, ``refine.py`` and ``sga.refine``: one photograph, one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import codec
import refine
import sga

STEPS = 4


@pytest.mark.parametrize("preset", ["fast", "sga"])
def test_three_ways_give_one_file(preset: str, pictures: Path, tmp_path: Path) -> None:
    photograph = tmp_path / "another_name.png"
    shutil.copy(pictures / "large.png", photograph)
    result = sga.refine(sga.load(), photograph, preset, STEPS, seed=3, progress=False)

    options = ["--preset", preset, "--steps", str(STEPS), "--seed", "3"]
    assert codec.main(["encode", str(photograph), "-o", str(tmp_path / "one.sga"), *options]) == 0
    assert (tmp_path / "one.sga").read_bytes() == result.file

    options = ["--config", preset, f"--model.steps={STEPS}", "--seed=3", "--trainer.accelerator=cpu"]
    assert refine.main([*options, "--data.root", str(pictures), "--output", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/bitstreams/large.bin").read_bytes() == result.file


def test_with_a_target_two_ways_report_one_loss(pictures: Path, tmp_path: Path) -> None:
    result = sga.refine(sga.load(), pictures / "small.png", "fast", 8, target_bpp=0.9, progress=False)
    options = ["--config=fast", "--model.steps=8", "--model.target_bpp=0.9", "--trainer.accelerator=cpu"]
    assert refine.main([*options, "--data.root", str(pictures / "small.png"), "--output", str(tmp_path)]) == 0
    row = json.loads((tmp_path / "images/small.json").read_bytes())
    assert (tmp_path / "bitstreams/small.bin").read_bytes() == result.file
    assert row["lmbda"] == float(result.objective.lmbda) != 0.013
    assert row["rd_loss"] == result.quality.loss(result.objective)
