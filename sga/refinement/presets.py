"""The refinements that have a name: the files of ``configs/refine``, the presets among them.

What needs torch is imported where it is used: commands list the names in their help.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sga.files import home

if TYPE_CHECKING:
    from sga.refinement.settings import RefinerSettings

CONFIGS = home() / "configs" / "refine"
PRESETS = ("instant", "fast", "balanced", "best")
DEFAULT = "instant"
"""Of one photograph, for which somebody waits."""
DEFAULT_OF_JOBS = "balanced"
"""Of the folders that ``refine.py`` refines."""


def names() -> list[str]:
    """Names of all files of ``configs/refine``, the presets first."""
    return [*PRESETS, *sorted({file.stem for file in CONFIGS.glob("*.yaml")}.difference(PRESETS))]


def preset(name: str = DEFAULT, steps: int | None = None) -> RefinerSettings:
    """The settings of a preset, to look at or to change with :func:`dataclasses.replace`.

    Args:
        name: ``instant`` (12 steps), ``fast`` (60), ``balanced`` (500), ``best`` (2000), or another file of ``configs/refine``,
            such as ``sga``.
        steps: Adam steps in place of the file's.

    Raises:
        ValueError: There is no such file, or ``steps`` is below 0.
    """
    from jsonargparse import ArgumentParser

    from sga.refinement.settings import RefinerSettings

    if name not in names():
        raise ValueError(f"no preset {name!r}: choose from {', '.join(names())}")
    parser = ArgumentParser()
    parser.add_class_arguments(RefinerSettings, "model")
    found: RefinerSettings = parser.instantiate(parser.parse_path(CONFIGS / f"{name}.yaml")).model
    return found if steps is None else replace(found, steps=steps)
