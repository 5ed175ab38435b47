"""Bootstrap intervals over images: images are drawn with replacement, each with all its measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEVEL = 95
"""Level of the intervals in per cent."""

Interval = tuple[float, float]


def draws(images: int, samples: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the images of each bootstrap sample, ``[samples, images]``."""
    return np.random.default_rng(seed).integers(images, size=(samples, images))


def interval(values: Sequence[float] | npt.NDArray[np.float64]) -> Interval:
    """Interval between the outer percentiles of the values of the samples, ``[samples]``."""
    low, high = np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
