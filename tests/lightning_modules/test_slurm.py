"""Launches under Slurm's variables, without a Slurm: what fits, and what is refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities import rank_zero_only

import refine
import train
from lightning_modules import slurm
from tests.training import arguments

STEP = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    import os

    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    return monkeypatch


def put(environment: pytest.MonkeyPatch, tasks: int, nodes: int = 1, per_node: bool = True, **more: str) -> None:
    counts = {"SLURM_NTASKS": str(tasks), "SLURM_NNODES": str(nodes)}
    if per_node:
        counts["SLURM_NTASKS_PER_NODE"] = str(tasks // nodes)
    for name, value in {**counts, **more}.items():
        environment.setenv(name, value)


@pytest.mark.parametrize(
    ("tasks", "nodes", "per_node", "step", "trainer", "message"),
    [
        (2, 1, True, False, "--trainer.devices=2", "write 'srun python ...'"),
        (2, 1, False, True, "--trainer.devices=2", "write '#SBATCH --ntasks-per-node=2', not '--ntasks=2'"),
        (2, 1, True, True, "--trainer.devices=1", "or '--trainer.devices 2 --trainer.num_nodes 1'"),
        (2, 1, True, True, "--trainer.devices=4", "write '#SBATCH --nodes=1' and '#SBATCH --ntasks-per-node=4'"),
        (4, 2, True, True, "--trainer.devices=4", "or '--trainer.devices 2 --trainer.num_nodes 2'"),
        (1, 2, True, True, "--trainer.num_nodes=2", "'#SBATCH --ntasks-per-node=1'"),
    ],
)
def test_a_launch_that_does_not_fit_is_refused_in_one_line(
    tasks: int,
    nodes: int,
    per_node: bool,
    step: bool,
    trainer: str,
    message: str,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(environment, tasks, nodes, per_node, **(STEP if step else {"SLURM_JOB_ID": "12", "SLURM_PROCID": "0"}))
    environment.setattr(rank_zero_only, "rank", 0)  # whatever earlier tests left: the rank that makes folders
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments(tmp_path, tmp_path / "run"), trainer])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_tasks_of_srun_are_the_processes_and_a_single_task_starts_its_own(environment: pytest.MonkeyPatch) -> None:
    assert slurm.cluster_environment() is None and slurm.task() == (0, 1)
    put(environment, 4, 2, **STEP)
    found = slurm.cluster_environment()
    assert isinstance(found, slurm.SrunEnvironment)
    assert not found.auto_requeue and found.world_size() == 4 and found.global_rank() == 1
    slurm.check_tasks(num_devices=2, num_nodes=2)
    put(environment, 1, **STEP)
    assert isinstance(slurm.cluster_environment(), LightningEnvironment)
    slurm.check_tasks(num_devices=8, num_nodes=1)


def test_torchrun_inside_a_job_is_left_alone(environment: pytest.MonkeyPatch) -> None:
    put(environment, 2, **STEP, TORCHELASTIC_RUN_ID="1")
    assert slurm.cluster_environment() is None and slurm.task() == (0, 1)
    slurm.check_tasks(num_devices=8, num_nodes=1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "two"}, "SLURM_NTASKS=two, which is no number"),
        ({"SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": "-"}, "SLURM_RESTART_COUNT=-, which is no number"),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}, "SLURM_STEP_ID and not SLURM_PROCID, SLURM_NODEID"),
        ({"SLURM_ARRAY_JOB_ID": "1"}, "SLURM_ARRAY_JOB_ID and not SLURM_ARRAY_TASK_ID"),
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS and not SLURM_JOB_ID"),
    ],
)
@pytest.mark.parametrize("command", [train.main, refine.main])
def test_what_is_left_of_a_job_is_refused_in_one_line(
    command: Callable[[list[str]], int],
    variables: dict[str, str],
    message: str,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        command(["--help"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and "unset ${!SLURM_@}" in line


def test_a_job_of_one_task_without_a_step_is_fine(environment: pytest.MonkeyPatch) -> None:
    put(environment, 1, SLURM_JOB_ID="12", SLURM_PROCID="0", SLURM_LOCALID="0")
    slurm.check_variables()
    assert slurm.task() == (0, 1)
