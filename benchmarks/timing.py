"""Timing that the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable


def timed(function: Callable[[], None]) -> float:
    """Wall time of a call in seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
