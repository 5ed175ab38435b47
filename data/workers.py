"""Processes that read ahead."""

from __future__ import annotations

import signal


def leave_signals_to_the_main_process(worker: int) -> None:
    """A ``worker_init_fn``. Slurm and Ctrl-C signal every process of a job; workers must live until the run has stopped."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
