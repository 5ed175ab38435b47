"""Bootstrap intervals over images: images are drawn with replacement, all that is measured of one goes with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEVEL = 95
"""Per cent of an interval."""

Interval = tuple[float, float]


def draws(images: int, samples: int, seed: int) -> npt.NDArray[np.int64]:
    """Which images each sample has, ``[samples, images]``."""
    return np.random.default_rng(seed).integers(images, size=(samples, images))


def interval(values: Sequence[float] | npt.NDArray[np.float64]) -> Interval:
    """Percentiles of what the samples gave, ``[samples]``."""
    low, high = np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
