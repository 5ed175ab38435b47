"""What the commands share: errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from data.images import ImageError
from lightning_modules.bitstream import BitstreamError
from lightning_modules.codecs.checkpoint import CheckpointError

USAGE_ERROR = 2
INTERRUPTED, TERMINATED = 130, 143
ACCELERATOR = "cpu" if torch.backends.mps.is_available() else "auto"
"""Lightning's choice, except where that would be MPS: it has no float64, in which files are coded."""


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """Ends the program with one line on standard error."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns what a user can cause (a wrong path, a damaged file, a bad value) into one line and exit code 2."""
    try:
        yield
    except (CheckpointError, BitstreamError, ImageError, MisconfigurationException, OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
