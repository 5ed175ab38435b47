"""Import first, in every command: quiet libraries, and an allocator that keeps the memory it has."""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings

MESSAGES = (
    r".*torch\.jit\.script.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    # Crops are numbered over the whole run and the sampler starts where the run stood.
    r".*your dataloader is not resumable.*",
    r".*is not supported by the model summary.*",
    r".*but have passed in a `LightningDataModule`.*",
)

for message in MESSAGES:
    warnings.filterwarnings("ignore", message=message)


class _WithoutTips(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "Tip:" not in record.getMessage()


for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.trainer"):
    logging.getLogger(name).addFilter(_WithoutTips())


def keep_freed_memory() -> None:
    """Tells glibc not to return freed memory to the system.

    A step frees and takes tensors of 25 MB again and again; by default each costs thousands of page faults, a quarter of the
    time of a step on a CPU. Elsewhere than on glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


keep_freed_memory()
