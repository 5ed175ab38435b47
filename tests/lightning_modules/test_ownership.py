from __future__ import annotations

from pathlib import Path

import pytest

import refine
import train
from lightning_modules.ownership import Owner, owner_of, refuse_foreign
from sga.runs.folder import claim
from tests.training import arguments

TRAINING = "model: {}\ndata: {}\ntrainer: {}\n"


def make(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TRAINING if path.name == "config.yaml" else "x")
    return folder


def test_a_folder_is_known_by_what_it_holds(tmp_path: Path) -> None:
    assert owner_of(tmp_path / "none") is None
    assert owner_of(make(tmp_path / "logs", "slurm-1.out", "photographs/a.png")) is None
    assert owner_of(make(tmp_path / "killed", "config.yaml")) is Owner.TRAINING
    assert owner_of(make(tmp_path / "trained", "last.ckpt")) is Owner.TRAINING
    assert owner_of(make(tmp_path / "old", "config.yaml", "images/a.json", "comparison.png")) is Owner.REFINEMENT
    assert claim(tmp_path / "begun", "0123") and owner_of(tmp_path / "begun") is Owner.REFINEMENT
    assert owner_of(make(tmp_path / "report", "index.html", "figures/a.png")) is Owner.REPORT
    for files in (["a.JPG"], ["SHA256SUMS"], ["crops-000.tar", "notes.txt"]):
        assert owner_of(make(tmp_path / files[0] / "set", *files)) is Owner.DATA
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yaml").write_text("model: {}\n")
    assert owner_of(tmp_path / "other") is Owner.SOMEBODY


def test_a_folder_that_is_not_one_s_own_is_refused(tmp_path: Path) -> None:
    trained = make(tmp_path / "trained", "last.ckpt")
    refuse_foreign(trained, Owner.TRAINING)
    refuse_foreign(tmp_path / "new", Owner.TRAINING)
    with pytest.raises(ValueError, match="trained: holds a training; choose another folder"):
        refuse_foreign(trained, Owner.REFINEMENT)
    with pytest.raises(ValueError, match="is a file, not a folder"):
        refuse_foreign(trained / "last.ckpt", Owner.TRAINING)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("files", [["config.yaml", "tensorboard/events.out.tfevents.1"], ["last.ckpt"], ["a.png"]])
def test_refine_leaves_a_training_and_a_set_as_they_are(
    files: list[str], tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(make(tmp_path / "other", *files))
    with pytest.raises(SystemExit) as stop:
        refine.main(["--config=fast", "--data.root", str(pictures), "--output", str(tmp_path / "other"), "--model.steps=0"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and "choose another folder" in line and contents(tmp_path / "other") == before


@pytest.mark.parametrize("files", [["config.yaml", "images/a.json"], ["a.png"], ["crops-000.tar"], ["index.html", "figures/a.svg"]])
def test_fit_leaves_a_refinement_and_a_set_as_they_are(
    files: list[str], tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(make(tmp_path / "other", *files))
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(pictures, tmp_path / "other"))
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and "choose another folder" in line and contents(tmp_path / "other") == before
