"""What the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable


def timed(function: Callable[[], None]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
