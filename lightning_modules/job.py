"""A job of ``refine.py``: may it go on in its folder, and what became of it."""

from __future__ import annotations

import torch

ACCELERATOR = "cpu" if torch.backends.mps.is_available() else "auto"
"""Lightning's choice, except where that would be MPS: it has no float64, in which files are coded."""
