"""Trainings that are killed, stopped or put off, each a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from lightning_modules.callbacks.checkpointing import LastCheckpoint
from lightning_modules.training_module import TrainingModule
from lightning_modules.training_run import keep_others_out, let_others_in
from tests.training import ROOT, arguments, weights

STEPS = 40


def settings(photographs: Path, output: Path, *more: str) -> list[str]:
    length = (f"--trainer.max_steps={STEPS}", "--data.steps_per_epoch=10", "--checkpoint_every=3")
    return arguments(photographs, output, *length, *more)


def start(photographs: Path, output: Path, *more: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    # One thread: weights are compared bit by bit.
    environment = {**inherited, "OMP_NUM_THREADS": "1", **(environment or {})}
    command = [sys.executable, "train.py", *settings(photographs, output, "--trainer.callbacks+=tests.slow.Slow", *more)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_to_the_end(photographs: Path, output: Path) -> str:
    process = start(photographs, output, environment={"SLOW_SECONDS": "0"})
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return printed


def wait_for_checkpoint(process: subprocess.Popen[str], output: Path) -> None:
    while not (output / "last.ckpt").is_file():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


@pytest.fixture(scope="module")
def whole(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of the uninterrupted run."""
    output = tmp_path_factory.mktemp("whole")
    run_to_the_end(photographs, output)
    return weights(output / "last.ckpt")


def curve(output: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def assert_rerun_ends_in(expected: dict[str, torch.Tensor], photographs: Path, output: Path) -> None:
    run_to_the_end(photographs, output)
    assert step_of(output / "last.ckpt") == STEPS
    found = weights(output / "last.ckpt")
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert [step for step, _ in curve(output, "train/loss")] == list(range(STEPS))  # one curve, each step once


def test_a_killed_run_goes_on_and_ends_in_the_same_weights(
    photographs: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = start(photographs, output)
    wait_for_checkpoint(process, output)
    process.kill()
    process.communicate()
    assert step_of(output / "last.ckpt") < STEPS
    assert_rerun_ends_in(whole, photographs, output)


def test_a_run_killed_before_a_step_is_logged_leaves_no_hole_in_the_curve(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(module: pl.LightningModule, *_: object) -> None:
        if module.global_step == 4:
            raise RuntimeError("killed")

    every = arguments(photographs, tmp_path / "run", "--checkpoint_every=1")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(TrainingModule, "on_train_batch_end", die)  # after all callbacks, before the values are logged
        patch.setattr(LastCheckpoint, "on_exception", lambda *_: None)  # no callback runs at a kill
        train.main(every)
    assert step_of(tmp_path / "run/last.ckpt") == 3
    train.main(every)
    steps = [step for step, _ in curve(tmp_path / "run", "train/loss")]
    assert steps == list(range(step_of(tmp_path / "run/last.ckpt"))) and len(steps) > 4


def test_a_run_killed_in_a_validation_leaves_no_hole_in_the_curve(photographs: Path, tmp_path: Path) -> None:
    more = ("--data.valid", str(photographs), "--checkpoint_every=1", "--trainer.num_sanity_val_steps=0")
    train.main(arguments(photographs, tmp_path / "whole", *more))
    with pytest.raises(RuntimeError, match="killed"):
        train.main(arguments(photographs, tmp_path / "run", *more, "--trainer.callbacks+=tests.slow.DieInValidation"))
    train.main(arguments(photographs, tmp_path / "run", *more))
    expected = curve(tmp_path / "whole", "valid/rd_loss")
    assert len(expected) == 3 and curve(tmp_path / "run", "valid/rd_loss") == expected
    best = [weights(tmp_path / name / "best.ckpt") for name in ("whole", "run")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_keeps_the_step_it_reports(
    signum: signal.Signals, code: int, photographs: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = start(photographs, output, "--data.workers=1")
    wait_for_checkpoint(process, output)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    step = step_of(output / "last.ckpt")
    assert f"stopped by {signum.name} at step {step}" in errors.splitlines()[-1] and "rerunning" in errors
    assert "Traceback" not in errors
    assert_rerun_ends_in(whole, photographs, output)


def fake_scontrol(folder: Path, code: int) -> Path:
    folder.mkdir()
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n[ {code} = 0 ] || echo "Job is gone" >&2\nexit {code}\n')
    script.chmod(0o755)
    return folder


@pytest.mark.parametrize(("code", "array"), [(0, True), (1, False)])
def test_a_time_limit_requeues_the_job(code: int, array: bool, photographs: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "run", fake_scontrol(tmp_path / "bin", code)
    slurm = {"SLURM_JOB_ID": "12", **({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"} if array else {})}
    process = start(photographs, output, environment={**slurm, "PATH": f"{folder}:{os.environ['PATH']}"})
    wait_for_checkpoint(process, output)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    step, job = step_of(output / "last.ckpt"), "7_3" if array else "12"
    assert f"stopped by SIGUSR1 at step {step}" in errors
    assert (folder / "calls").read_text() == f"requeue {job}\n"
    assert process.returncode == (0 if code == 0 else 138)
    assert ("cannot be requeued (Job is gone): submit it again" in errors) == (code == 1)


def test_resume_never_starts_anew_but_a_requeued_job_goes_on(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    short = arguments(photographs, output, "--trainer.max_steps=2")
    train.main(short)
    first = (output / "last.ckpt").read_bytes()
    capsys.readouterr()
    train.main([*short, "--resume=never"])
    assert "going on" not in capsys.readouterr().out
    assert (output / "last.ckpt.old").read_bytes() == first
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train.main([*short, "--resume=never"])
    assert f"the run is finished (--trainer.max_steps 2), from {output}/last.ckpt, step 2" in capsys.readouterr().out


def test_resume_from_a_path(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plateau = ("--model.schedule=plateau", "--data.valid", str(photographs))
    train.main(arguments(photographs, tmp_path / "first", *plateau, "--trainer.max_steps=2"))
    (tmp_path / "run").mkdir()
    checkpoint = (tmp_path / "first/last.ckpt").rename(tmp_path / "elsewhere.ckpt")
    train.main(arguments(photographs, tmp_path / "run", *plateau, "--trainer.max_steps=3", "--resume", str(checkpoint)))
    assert f"going on from {checkpoint}, step 2" in capsys.readouterr().out
    assert step_of(tmp_path / "run/last.ckpt") == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--resume=missing.ckpt", "no such checkpoint: missing.ckpt"),
        ("--resume=pyproject.toml", "damaged or no checkpoint"),
        ("--ckpt_path=other.ckpt", "--resume other.ckpt"),
        ("--checkpoint_every=0", "checkpoint_every must be at least 1"),
        ("--checkpoint_minutes=0", "checkpoint_minutes above 0"),
    ],
)
def test_what_cannot_be_resumed_is_one_line(
    setting: str, message: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(photographs, tmp_path / "run", setting))
    assert stop.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_is_written_after_minutes(photographs: Path, tmp_path: Path) -> None:
    more = ("--checkpoint_every=1000", "--checkpoint_minutes=0.000001", "--trainer.callbacks+=tests.training.Stop")
    with pytest.raises(RuntimeError, match="killed"):
        train.main(arguments(photographs, tmp_path / "run", *more))
    assert step_of(tmp_path / "run/last.ckpt") == 3


def test_ranks_agree_on_a_signal_of_one_of_them(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    process = start(photographs, output, *two, environment={"SIGNAL_RANK": "1"})
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 143, errors
    step = step_of(output / "last.ckpt")
    assert f"stopped by SIGTERM at step {step}" in errors and errors.count("stopped by") == 1


def test_a_damaged_last_checkpoint_is_one_line(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.ckpt").write_bytes(b"nonsense")
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(photographs, tmp_path / "run"))
    assert stop.value.code == 2
    assert "run/last.ckpt is damaged or no checkpoint" in capsys.readouterr().err.splitlines()[-1]


def test_a_second_training_is_kept_out_until_the_first_ends_even_if_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from lightning_modules.training_run import keep_others_out; "
        f"keep_others_out(pathlib.Path({str(tmp_path)!r})); print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        with pytest.raises(ValueError, match="another training works in it"):
            keep_others_out(tmp_path)
        other.kill()
    keep_others_out(tmp_path)
    keep_others_out(tmp_path)  # this process's own is no other
    let_others_in()
