"""Checks of settings, and of what the machine has."""

from __future__ import annotations

import math
import os
import shutil
import sys


def require_positive(**settings: float) -> None:
    """Checks that settings are finite numbers above 0; raises ValueError with the name of the first that is not."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, not {value}")


def cpp_compiler() -> str | None:
    """Path of the C++ compiler that PyTorch's inductor would call; ``None`` where there is none."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))
