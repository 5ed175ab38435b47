"""Checks of settings."""

from __future__ import annotations

import math


def require_positive(**settings: float) -> None:
    """Checks that settings are finite numbers above 0; raises ValueError with the name of the first that is not."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, not {value}")
