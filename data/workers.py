"""Worker processes of data loaders."""

from __future__ import annotations

import signal


def leave_signals_to_the_main_process(worker: int) -> None:
    """Ignores signals, as a ``worker_init_fn``: Slurm and Ctrl-C signal every process, but workers must live as long as the run."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
