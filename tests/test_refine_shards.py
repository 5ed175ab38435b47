"""Refinements in several independent processes, and results of very many images."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from torch import Tensor

import refine
from sga.images import write_image
from sga.runs.folder import IMAGES, MARK
from sga.runs.results import COLUMNS, ImageResult, write_result
from sga.runs.summary import summarise
from sga.runs.table import print_table
from tests.conftest import without_times

ROOT = Path(__file__).parents[1]
NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def folder(tmp_path: Path, photograph: Tensor) -> Path:
    root = tmp_path / "photographs"
    root.mkdir()
    for i, name in enumerate(NAMES):
        write_image(photograph[:, 100 + 20 * i : 140 + 20 * i, 200:250], root / f"{name}.png")
    return root


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--config", str(ROOT / "configs/refine/ssl.yaml"), "--data.root", str(folder), "--output", str(output)),
        *("--model.steps=4", "--model.evaluate_every=2", "--model.precision=fp32", "--trainer.accelerator=cpu", *more),
    ]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open() as file:
        return [without_times(row) for row in csv.DictReader(file)]


def finished(output: Path) -> set[str]:
    return {path.stem for path in (output / "images").glob("*.json")}


def test_shards_are_one_job(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine.main(arguments(folder, tmp_path / "one")) == 0
    output = tmp_path / "parts"
    assert refine.main(arguments(folder, output, "--data.shard=1/2")) == 0
    assert finished(output) == {"b", "d"}
    assert "2 of 2 images of shard 1/2 are finished" in capsys.readouterr().out and not (output / "results.csv").exists()
    assert refine.main(arguments(folder, output, "--data.shard=0/2", "--data.batch_size=2", "--data.limit=5")) == 0
    assert "mean" in capsys.readouterr().out  # the last makes the results of all
    assert [row["image"] for row in rows(output)] == NAMES
    before = {path: path.stat().st_mtime_ns for path in (output / "images").iterdir()}
    (output / "results.csv").unlink()
    assert refine.main(arguments(folder, output)) == 0  # so does one that runs again
    assert {path: path.stat().st_mtime_ns for path in (output / "images").iterdir()} == before
    for one, part in zip(rows(tmp_path / "one"), rows(output), strict=True):
        assert float(part["rd_loss"]) == pytest.approx(float(one["rd_loss"]), rel=5e-3)
        if one["image"] in "bd":
            assert part == one


def test_an_image_that_fails_is_of_its_shard_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stop:
        refine.main(arguments(folder, tmp_path / "run", "--data.shard=1/2"))
    assert stop.value.code == 1
    assert "1 of 2 images of shard 1/2 are not finished" in capsys.readouterr().err
    assert refine.main(arguments(folder, tmp_path / "run", "--data.shard=0/2")) == 0
    assert [row["image"] for row in rows(tmp_path / "run")] == ["a", "c", "d", "e"]
    assert "b" in json.loads((tmp_path / "run/summary.json").read_text())["failures"]


def test_shards_of_other_settings_are_not_merged(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine.main(arguments(folder, tmp_path / "run", "--data.shard=0/2")) == 0
    with pytest.raises(SystemExit) as stop:
        refine.main(arguments(folder, tmp_path / "run", "--data.shard=1/2", "--model.lmbda=0.05"))
    assert stop.value.code == 2 and "results of other settings (--model.lmbda)" in capsys.readouterr().err
    assert finished(tmp_path / "run") == {"a", "c", "e"}  # before any work
    assert refine.main(arguments(folder, tmp_path / "run", "--data.shard=1/2")) == 0


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "a/b", "0/0"])
def test_what_is_no_shard_is_refused(shard: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        refine.main(arguments(folder, tmp_path / "run", f"--data.shard={shard}"))
    assert stop.value.code == 2 and f"I from 0 to N - 1, not {shard}" in capsys.readouterr().err


def test_tasks_of_srun_need_nothing_of_one_another(folder: Path, tmp_path: Path) -> None:
    """Two processes with the variables that srun sets; one stands still and is killed, which the other does not notice."""
    output = tmp_path / "run"

    def start(number: int) -> subprocess.Popen[str]:
        slurm = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(number)}
        others = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": str(number), "SLURM_NODEID": "0"}
        command = [sys.executable, "refine.py", *arguments(folder, output)]
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **slurm, **others}, stdout=subprocess.PIPE, text=True)

    killed = start(0)
    try:
        while not list(output.glob(f"{MARK}*")):  # it has made the folder its job's and begins
            time.sleep(0.02)
        killed.send_signal(signal.SIGSTOP)
        survivor = start(1)
        out, _ = survivor.communicate(timeout=240)
        assert survivor.returncode == 0 and "2 of 2 images of shard 1/2 are finished" in out
    finally:
        killed.kill()
        killed.communicate()
    assert finished(output) == {"b", "d"}
    assert refine.main(arguments(folder, output)) == 0
    assert refine.main(arguments(folder, tmp_path / "one")) == 0
    assert rows(output) == rows(tmp_path / "one")


def test_sigterm_ends_a_refinement_and_keeps_what_is_finished(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = [sys.executable, "refine.py", *arguments(folder, output, "--model.steps=40")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not finished(output):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    done = len(finished(output))
    assert process.returncode == 143 and done < len(NAMES), errors
    assert f"interrupted; finished work is kept, {len(NAMES) - done} of 5 images are not finished" in errors.splitlines()[-1]


def test_results_of_many_images_are_merged_in_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, counts = ("image", "method", "distortion"), ("height", "width", "steps", "best_step")
    values = {name: "x" if name in words else 5 if name in counts else 0.5 for name in COLUMNS}

    def peak(images: int) -> int:
        output = tmp_path / str(images)
        (output / IMAGES).mkdir(parents=True)
        names = [f"{i:05d}" for i in range(images)]
        for i, name in enumerate(names):
            measured = {**values, "image": name, "rd_loss": i, "ms_ssim": None if i % 2 else 0.9}
            write_result(output, ImageResult.from_row(measured), {"fingerprint": "x"})
        tracemalloc.start()
        summary = summarise(output, names, "x")
        print_table([], summary["means"])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert summary["finished"] == images and summary["without_ms_ssim"] == images // 2
        assert summary["means"]["rd_loss"] == (images - 1) / 2 and summary["means"]["ms_ssim"] == pytest.approx(0.9)
        assert [row["image"] for row in rows(output)] == names
        return most

    peak(10)  # what is loaded at first use is not counted below
    assert peak(4000) < peak(500) + 200_000
    assert len(capsys.readouterr().out.splitlines()) < 60  # means only, three times
