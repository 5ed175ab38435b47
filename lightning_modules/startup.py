"""Quiet libraries, and an allocator that keeps the memory it has.

Every command imports it before the project's other modules: some libraries that those import warn at their import.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings

MESSAGES = (
    r".*torch\.jit\.script.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    r".*The `srun` command is available.*",  # the commands check the launch themselves
    # Crops are numbered over the whole run and the sampler starts where the run stood.
    r".*your dataloader is not resumable.*",
    r".*is not supported by the model summary.*",
    r".*Total length of `list` across ranks is zero.*",
    r".*but have passed in a `LightningDataModule`.*",
    r".*args parameter is intended to run from within Python.*",  # the commands hand their own arguments on
)

for message in MESSAGES:
    warnings.filterwarnings("ignore", message=message)


class _WithoutTips(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # Lightning says the latter also where nothing is read.
        return not any(text in record.getMessage() for text in ("Tip:", "`weights_only` was not set"))


for name in ("utilities.rank_zero", "trainer.trainer", "trainer.connectors.checkpoint_connector"):
    logging.getLogger(f"pytorch_lightning.{name}").addFilter(_WithoutTips())


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


keep_freed_memory()
