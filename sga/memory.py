"""An allocator that keeps the memory it has."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h


def keep_freed_memory(keep: bool = True) -> None:
    """Tells glibc not to return freed memory to the system; elsewhere than on glibc it does nothing.

    A step frees and takes tensors of 25 MB again and again; by default each costs thousands of page faults, a quarter of the
    time of a step on a CPU.

    Args:
        keep: ``False`` restores what glibc's own thresholds grow to under such tensors (for comparisons).
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0 if keep else 65536)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if keep else 64 * 2**20)
        if not keep:
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
