"""The templates on a real Slurm of one node: time limits, preemption, and tasks that die. ``make slurm-test``; some minutes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from data.samples import sample_paths
from sga.images import read_image, write_image
from tests.conftest import without_times
from tests.training import weights

pytestmark = pytest.mark.slurm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = 40
TINY = [
    *("--data.crop_size=64", "--data.batch_size=2", "--data.workers=1", "--data.steps_per_epoch=20", "--model.warmup_steps=2"),
    *("--model.codec.init_args.N=8", "--model.codec.init_args.M=12", f"--trainer.max_steps={STEPS}"),
    *("--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.accelerator=cpu", "--trainer.callbacks+=tests.slow.Slow"),
]
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm", numbered=True)
    started = subprocess.run([HERE / "start.sh", folder], capture_output=True, text=True, check=False)
    if started.returncode == 3:
        pytest.skip(started.stdout.strip().splitlines()[-1])
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    for name, value in {"CODE": str(ROOT), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        patch.setenv(name, value)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield
    finally:
        subprocess.run([HERE / "stop.sh", folder], check=False)
        patch.undo()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for i, path in enumerate(sample_paths()[:2]):
        write_image(read_image(path)[:, :256, :256], folder / f"{i}.png")
    return folder


def sbatch(template: str, environment: dict[str, str], options: list[str], *arguments: str) -> str:
    command = ["sbatch", "--parsable", "--cpus-per-task=1", *options, str(ROOT / "configs/slurm" / template), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(job: str) -> dict[str, str]:
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)


def wait_for(condition: Callable[[], bool], seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, log.read_text() if log.is_file() else "no log"
        time.sleep(0.5)


def ended(job: str, *states: str) -> bool:
    now = state(job)["JobState"]
    assert now not in FINAL - set(states), now
    return now in states


def train_without_slurm(pictures: Path, output: Path, *arguments: str, quality: str = "mse_4") -> dict[str, torch.Tensor]:
    presets = ("--config", f"scale_hyperprior/{quality}", "--config", "length/smoke")
    command = [sys.executable, "train.py", "fit", *presets]
    paths = ["--data.root", str(pictures), "--data.valid", str(pictures), "--output", str(output)]
    subprocess.run([*command, *paths, *TINY, *arguments], cwd=ROOT, env={**os.environ, "SLOW_SECONDS": "0"}, check=True)
    return weights(output / "last.ckpt")


def assert_equal(expected: dict[str, torch.Tensor], checkpoint: Path) -> None:
    assert torch.load(checkpoint, weights_only=True)["global_step"] == STEPS
    found = weights(checkpoint)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_a_training_that_meets_its_time_limit_goes_on(pictures: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    environment = {"IMAGES": str(pictures), "VALID": str(pictures), "RUN": str(run), "LENGTH": "smoke", "SLOW_SECONDS": "4"}
    options = ["--time=2", "--signal=USR1@30", "--ntasks-per-node=2", "--gpus-per-node=2", f"--output={log}"]
    job = sbatch("train.sbatch", environment, options, *TINY)
    wait_for(lambda: ended(job, "COMPLETED"), 600, log)
    text = log.read_text()
    assert int(state(job)["Restarts"]) >= 1
    assert f"requeueing job {job}" in text
    step = int(text.split("stopped by SIGUSR1 at step ")[1].split(",")[0])
    assert f"going on from {run}/last.ckpt, step {step}" in text
    assert not list(run.glob("hpc_ckpt*"))
    assert_equal(train_without_slurm(pictures, tmp_path / "whole", "--trainer.devices=2"), run / "last.ckpt")


def test_a_training_that_is_preempted_goes_on(pictures: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "runs", tmp_path / "log"
    last = run / "mse_5/last.ckpt"
    paths = {"IMAGES": str(pictures), "VALID": str(pictures), "RUN": str(run)}
    environment = {**paths, "QUALITIES": "mse_1 mse_5", "LENGTH": "smoke", "SLOW_SECONDS": "1"}
    options = ["--array=1", "--exclusive", "--partition=low", f"--output={log}"]
    job = sbatch("train_array.sbatch", environment, options, *TINY, "--checkpoint_every=2")
    wait_for(last.is_file, 120, log)
    high = ["sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(high, check=True, capture_output=True)
    wait_for(lambda: ended(f"{job}_1", "COMPLETED"), 300, log)
    text = log.read_text()
    assert int(state(f"{job}_1")["Restarts"]) == 1
    step = int(text.split("stopped by SIGTERM at step ")[1].split(",")[0])
    assert f"going on from {last}, step {step}" in text
    assert_equal(train_without_slurm(pictures, tmp_path / "whole", quality="mse_5"), last)


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open() as file:
        return [without_times(row) for row in csv.DictReader(file)]


def task_of(job: str, number: int) -> int | None:
    """Process id of a task of a job of refinement."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        wanted = {f"SLURM_PROCID={number}".encode(), f"SLURM_JOB_ID={job}".encode()}
        if b"refine.py" in command and b"srun" not in command and wanted < set(environment):
            return int(folder.name)
    return None


def test_a_refinement_whose_task_is_killed_is_completed_by_submitting_it_again(tmp_path: Path) -> None:
    images, run, log = tmp_path / "images", tmp_path / "runs", tmp_path / "log"
    images.mkdir()
    photograph = read_image(sample_paths()[0])
    for i in range(8):
        write_image(photograph[:, 40 * i : 40 * i + 64, 200:264], images / f"{i}.png")
    environment = {"IMAGES": str(images), "RUN": str(run), "METHODS": "ssl sga"}
    options = ["--ntasks-per-node=2", f"--output={log}-%a"]
    settings = ["--model.steps=60", "--model.precision=fp32", "--trainer.accelerator=cpu"]
    job = sbatch("refine.sbatch", environment, ["--array=0-1", *options], *settings)
    first = run / "ssl_0/images"
    wait_for((first / "1.json").is_file, 240, tmp_path / "log-0")
    task = task_of(state(f"{job}_0")["JobId"], 1)
    assert task is not None
    os.kill(task, signal.SIGKILL)
    wait_for(lambda: any((run / "sga_0/images").glob("*.json")), 240, tmp_path / "log-1")
    subprocess.run(["scancel", "--batch", "--signal=USR1", f"{job}_1"], check=True)  # as at a time limit
    wait_for(lambda: ended(f"{job}_0", "FAILED") and ended(f"{job}_1", "COMPLETED"), 240, tmp_path / "log-0")
    assert [row["image"] for row in rows(run / "sga_0")] == [str(i) for i in range(8)]  # the other task of the array
    assert int(state(f"{job}_1")["Restarts"]) == 1
    done = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert set(done) >= {"0.json", "2.json", "4.json", "6.json"} and len(done) < 8  # the other task of srun
    again = sbatch("refine.sbatch", environment, ["--array=0", *options], *settings)
    wait_for(lambda: ended(f"{again}_0", "COMPLETED"), 240, tmp_path / "log-0")
    after = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert {name: after[name] for name in done} == done and len(after) == 8
    command = [sys.executable, "refine.py", "--config", str(ROOT / "configs/refine/ssl.yaml"), "--data.root", str(images)]
    subprocess.run([*command, "--output", str(tmp_path / "one"), *settings], cwd=ROOT, check=True)
    assert rows(run / "ssl_0") == rows(tmp_path / "one")
