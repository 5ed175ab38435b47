"""Metrics as the field reports them: measured on each 8-bit image, then averaged over images, on any number of ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sga.quality import ALWAYS, METRICS, Quality, finite


class QualityMeans(Metric):
    """Mean over images of each metric of :class:`sga.quality.Quality`; images without it (``None``, infinite) are left out.

    Synchronised over ranks: each rank holds the sums and the counts of its images.
    """

    full_state_update = False
    total: Tensor
    count: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(len(METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(METRICS), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, quality: Quality) -> None:
        """Adds the metrics of one image."""
        self.images += 1
        for i, value in enumerate(quality.columns().values()):
            if (number := finite(value)) is not None:
                self.total[i] += number
                self.count[i] += 1

    def compute(self) -> dict[str, Tensor]:
        """Means by the names of the metrics, scalars; a metric that no image has is left out.

        ``without_psnr_db`` and so on are the numbers of images that :data:`sga.quality.ALWAYS`'s means leave out, where any are.
        """
        means = {name: self.total[i] / self.count[i] for i, name in enumerate(METRICS) if self.count[i] > 0}
        without = {f"without_{name}": self.images - self.count[i] for i, name in enumerate(METRICS) if name in ALWAYS}
        return means | {name: number for name, number in without.items() if number > 0}
