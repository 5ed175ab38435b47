"""Slurm: the environment of a process, the launch of several tasks, and requeueing."""

from __future__ import annotations

import os
import subprocess

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

NUMBERS = (
    *("SLURM_NTASKS", "SLURM_NNODES", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_RESTART_COUNT"),
)
NEEDS = {
    "SLURM_STEP_ID": ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
    "SLURM_ARRAY_JOB_ID": ("SLURM_ARRAY_TASK_ID",),
    "SLURM_NTASKS": ("SLURM_JOB_ID",),
}
"""Variables that mean something only together with others."""


class SrunEnvironment(SLURMEnvironment):
    """Cluster environment with one process of Lightning per task of ``srun``.

    Lightning's own reaction to SIGUSR1 is off: it writes a checkpoint inside the signal handler, in the middle of a step.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Raises ValueError where the number of tasks does not fit the Trainer."""
        check_tasks(num_devices, num_nodes)


def check_variables() -> None:
    """Refuses variables that no job of Slurm has: what is left of one in a shell, or in a container that passes some of them on.

    Raises:
        ValueError: One is not a number, or lacks those that it needs.
    """
    remedy = "unset what is left of a job ('unset ${!SLURM_@}'), or pass all of its variables on"
    for name in NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            raise ValueError(f"the environment has {name}={os.environ[name]}, which is no number: {remedy}")
    for name, needed in NEEDS.items():
        missing = [other for other in needed if other not in os.environ]
        if name in os.environ and missing:
            raise ValueError(f"the environment has {name} and not {', '.join(missing)}: {remedy}")


def job_id() -> str | None:
    """Identifier of the job for ``scontrol``, ``JOB`` or ``JOB_TASK``; ``None`` outside Slurm."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def is_requeued() -> bool:
    """Whether Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue(job: str) -> str | None:
    """Puts a job back into the queue, upon which Slurm ends its processes. Returns an error message, or ``None``."""
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()


def task() -> tuple[int, int]:
    """Number of this process among the tasks of ``srun``, and their count; (0, 1) without ``srun`` and under ``torchrun``."""
    if "SLURM_STEP_ID" not in os.environ or torch.distributed.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["SLURM_PROCID"]), int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1")))


def cluster_environment() -> ClusterEnvironment | None:
    """Environment by which the processes of a Trainer connect inside a job; ``None`` outside Slurm and under ``torchrun``.

    A single task launches its processes itself, as on a machine without Slurm.

    Raises:
        ValueError: The job has several tasks, but ``srun`` did not start this process, or the tasks per node are not fixed.
    """
    if job_id() is None or torch.distributed.is_torchelastic_launched():
        return None
    wanted = int(os.environ.get("SLURM_NTASKS", "1"))
    if wanted > 1 and "SLURM_STEP_ID" not in os.environ:
        raise ValueError(f"the job has {wanted} tasks, but srun did not start this process: write 'srun python ...'")
    _, tasks = task()
    if tasks == 1:
        return LightningEnvironment()
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        each = tasks // _nodes()
        raise ValueError(f"the tasks per node are not fixed: write '#SBATCH --ntasks-per-node={each}', not '--ntasks={tasks}'")
    return SrunEnvironment()


def check_tasks(num_devices: int, num_nodes: int) -> None:
    """Compares the tasks of ``srun`` with ``--trainer.devices`` (per node) and ``--trainer.num_nodes``.

    Raises:
        ValueError: They differ; the message names the lines to change.
    """
    _, tasks = task()
    if torch.distributed.is_torchelastic_launched() or "SLURM_STEP_ID" not in os.environ:
        return
    if tasks == 1 and num_nodes == 1:
        return
    if num_devices * num_nodes != tasks or num_nodes != _nodes():
        raise ValueError(
            f"srun started {tasks} tasks on {_nodes()} nodes, but --trainer.devices {num_devices} x --trainer.num_nodes {num_nodes}"
            f" needs a task for each device: write '#SBATCH --nodes={num_nodes}' and '#SBATCH --ntasks-per-node={num_devices}',"
            f" or '--trainer.devices {max(1, tasks // _nodes())} --trainer.num_nodes {_nodes()}'"
        )


def _nodes() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", "1")))
