"""Settings of the allocator: freed memory is kept."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h


def keep_freed_memory(keep: bool = True) -> None:
    """Sets glibc to keep freed memory instead of returning it to the system; it does nothing where there is no glibc.

    A step frees and allocates tensors of 25 MB again and again; by default each costs thousands of page faults, a quarter of the
    time per step on a CPU.

    Args:
        keep: Whether freed memory is kept; ``False`` sets the values that glibc's own thresholds reach with such tensors, for
            comparisons.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0 if keep else 65536)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if keep else 64 * 2**20)
        if not keep:
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
