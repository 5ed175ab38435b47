"""Filters for warnings and log lines of libraries that do not concern the user.

Every command imports this before the project's other modules, since some libraries warn when they are imported.
"""

from __future__ import annotations

import logging
import warnings

MESSAGES = (
    r".*torch\.jit\.script.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    r".*The `srun` command is available.*",  # the commands check the launch themselves
    # Crops are numbered over the whole run, and the sampler starts at the next number.
    r".*your dataloader is not resumable.*",
    r"Checkpoint directory .* exists and is not empty.*",  # a run goes on in its own folder; others' are refused
    r".*could not find the monitored key.*",  # at the end of a resumed run before its first validation
    r"The dirpath has changed from .*",  # a run that goes on from a checkpoint of another has a best of its own
    r".*is not supported by the model summary.*",
    r".*Total length of `list` across ranks is zero.*",
    r".*but have passed in a `LightningDataModule`.*",
    r".*args parameter is intended to run from within Python.*",  # the commands hand their own arguments on
)

for message in MESSAGES:
    warnings.filterwarnings("ignore", message=message)


class _WithoutTips(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # Lightning logs the second also where it reads no checkpoint.
        return not any(text in record.getMessage() for text in ("Tip:", "`weights_only` was not set"))


for name in ("utilities.rank_zero", "trainer.trainer", "trainer.connectors.checkpoint_connector"):
    logging.getLogger(f"pytorch_lightning.{name}").addFilter(_WithoutTips())
