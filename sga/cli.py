"""What the commands share: errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from sga.bitstream import BitstreamError
from sga.codecs.checkpoint import CheckpointError
from sga.images import ImageError

USAGE_ERROR = 2
INTERRUPTED, TERMINATED = 130, 143


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """Ends the program with one line on standard error."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def errors_in_one_line(*more: type[Exception]) -> Iterator[None]:
    """Turns what a user can cause (a wrong path, a damaged file, a bad value) into one line and exit code 2.

    Args:
        more: Exceptions of other libraries that a user can cause.
    """
    caught: tuple[type[Exception], ...] = (CheckpointError, BitstreamError, ImageError, OSError, ValueError, *more)
    try:
        yield
    except caught as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
