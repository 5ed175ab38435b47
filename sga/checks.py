"""Checks of settings."""

from __future__ import annotations

import math


def require_positive(**settings: float) -> None:
    """Raises ValueError, naming the setting, where one is not a finite number above 0."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, not {value}")
