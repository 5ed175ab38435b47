"""Every study of ``configs/studies``."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_modules.study_plan import read_plan

STUDIES = sorted((Path(__file__).parents[2] / "configs/studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_ship_are_sound_and_their_comments_say_the_work(path: Path, photographs: Path, tmp_path: Path) -> None:
    plan = read_plan(path, tmp_path, str(photographs))
    steps = sum(run.steps for run in plan)
    assert f"# Work: {len(plan)} runs, {steps} steps per image (Kodak: {24 * steps} image-steps)." in path.read_text()
    assert f"# python study.py --config {path.stem} " in path.read_text()
