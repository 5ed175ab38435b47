"""Errors in one line, for all commands."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

USAGE_ERROR = 2
INTERRUPTED, TERMINATED = 130, 143


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """Ends the program with one line on standard error."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def errors_in_one_line(*more: type[Exception]) -> Iterator[None]:
    """Turns errors that a user can cause (a wrong path, a damaged file, too little memory) into one line and exit code 2.

    Args:
        more: Exceptions of other libraries that a user can cause.
    """
    # Pillow's warning before the error of the image that is over the project's own limit.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit of ")
    caught: tuple[type[Exception], ...] = (OSError, ValueError, *more)  # the project's own errors are ValueErrors
    try:
        yield
    except caught as error:
        fail(_text(error))
    except (MemoryError, RuntimeError) as error:
        if (reason := out_of_memory(error)) is None:
            raise
        fail(reason)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


def out_of_memory(error: Exception) -> str | None:
    """What to say of an error of too little memory, of the machine or of a device; ``None`` of any other.

    PyTorch's errors are known by their name and their text: commands that need no torch do not import it.
    """
    device = type(error).__name__ == "OutOfMemoryError"
    if device or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        where = "the device" if device else "this machine"
        return f"out of memory: {where} has too little for this; use another, smaller images, or smaller batches"
    return None


def _text(error: Exception) -> str:
    """Message of an error; one of the system names its file first and without a number: ``a.sga: no such file or directory``."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)
