"""What the wheel holds beside the package: the rooms of the checkout, laid into ``sga/_home``, where ``sga.files.home`` finds them.

Not so for an editable installation, which finds them in the checkout. Nothing of them goes to the top level of ``site-packages``,
where ``data`` or ``reports`` would collide with folders of a user's.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = (
    "configs",
    "data",
    "lightning_modules",
    "reports",
    "refine.py",
    "study.py",
    "train.py",
    "checkpoints/variable_rate_scale_hyperprior.safetensors",
)


class Home(BuildHookInterface[BuilderConfig]):
    """Lays the rooms into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build; ``version`` is ``standard`` or ``editable``."""
        if version == "standard":
            build_data["force_include"] |= {room: f"sga/_home/{room}" for room in ROOMS}
