"""Worker processes of data loaders."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
"""What workers hand over lies there, on Linux."""

PREFETCHED = 2
"""Batches that a worker makes ahead; it works on one more."""


def leave_signals_to_the_main_process(worker: int) -> None:
    """Ignores signals, as a ``worker_init_fn``: Slurm and Ctrl-C signal every process, but workers must live as long as the run."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)


def require_shared_memory(workers: int, batch_bytes: int) -> None:
    """Refuses workers whose batches the shared memory cannot hold: they would wait for ever, or die without a word.

    Args:
        workers: Number of workers on this machine.
        batch_bytes: Size of a batch.

    Raises:
        ValueError: There is too little.
    """
    needed = workers * (PREFETCHED + 1) * batch_bytes
    if SHARED_MEMORY.is_dir() and needed > (free := shutil.disk_usage(SHARED_MEMORY).free):
        raise ValueError(
            f"the batches of {workers} workers take up to {needed / 1e6:.0f} MB of {SHARED_MEMORY}, where {free / 1e6:.0f} MB are "
            "free: set fewer with --data.workers (0 needs none), or give the machine more (docker run --shm-size=1g)"
        )
