"""Import first: hides what libraries say about themselves, which a user can do nothing about."""

from __future__ import annotations

import logging
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
