"""Metrics as the field reports them: measured on each 8-bit image, then averaged over images, on any number of ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sga.quality import METRICS, Quality, finite


class QualityMeans(Metric):
    """Mean over images of each metric of :class:`sga.quality.Quality`; images without it (``None``, infinite) are left out.

    Synchronised over ranks: each rank holds the sums and the counts of its images.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(len(METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(METRICS), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, quality: Quality) -> None:
        """Adds the metrics of one image."""
        for i, value in enumerate(quality.columns().values()):
            if (number := finite(value)) is not None:
                self.total[i] += number
                self.count[i] += 1

    def compute(self) -> dict[str, Tensor]:
        """Means by the names of the metrics, scalars; a metric that no image has is left out."""
        means = self.total / self.count
        return {name: means[i] for i, name in enumerate(METRICS) if self.count[i] > 0}
