"""Trains a codec, and measures it from files.

``python train.py fit --config scale_hyperprior/mse_4 --config length/short --data.root DIR --data.valid DIR --output RUN``

``python train.py test --config RUN/config.yaml --data.test DIR --output RUN`` writes a file for every image and measures it.
"""

from __future__ import annotations

import sys

from lightning_fabric.utilities.exceptions import MisconfigurationException

import lightning_modules.quiet  # noqa: F401  (before the project's other modules)
from lightning_modules import slurm
from lightning_modules.callbacks.checkpointing import Stopped
from lightning_modules.training_cli import TrainingCLI
from lightning_modules.training_run import after_signal, let_others_in
from sga.allocator import keep_freed_memory
from sga.cli import errors_in_one_line


def main(args: list[str] | None = None, prog: str = "train.py") -> int:
    """Runs the command; ``args`` are by default those of the process, ``prog`` is what the help calls it."""
    with errors_in_one_line(MisconfigurationException):
        slurm.check_variables()
        keep_freed_memory()
        try:
            TrainingCLI(sys.argv[1:] if args is None else args, prog)
        except Stopped as stop:
            return after_signal(stop)
        finally:
            let_others_in()
    return 0


if __name__ == "__main__":
    sys.exit(main())
