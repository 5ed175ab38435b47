"""The refinements that have a name: the files of ``configs/refine``, and ``fast``, ``balanced`` and ``best`` among them.

What needs torch is imported where it is used: commands list the names in their help.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sga.files import home

if TYPE_CHECKING:
    from sga.refinement.settings import RefinerSettings

CONFIGS = home() / "configs" / "refine"
PRESETS = ("fast", "balanced", "best")
DEFAULT = "balanced"


def names() -> list[str]:
    """Names of all files of ``configs/refine``, the presets first."""
    return [*PRESETS, *sorted({file.stem for file in CONFIGS.glob("*.yaml")}.difference(PRESETS))]


def config_file(name: str) -> Path:
    """The file of a refinement: ``configs/refine/NAME.yaml``, or a file of this path.

    Raises:
        ValueError: There is neither.
    """
    path = Path(name)
    if path.suffix != ".yaml" and not path.is_file():
        path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"--config {name}: no such file; give the path of one, or a name of configs/refine: {' '.join(names())}")
    return path


def with_config(args: Sequence[str]) -> list[str]:
    """Arguments of ``refine.py`` with a file for each name after ``--config``, and with the default where nothing is named.

    Raises:
        ValueError: A name has no file.
    """
    words: list[str] = []
    named, is_name = False, False
    for word in args:
        joined = re.fullmatch("(?:--config=|-c=|-c)(.+)", word)
        if is_name:
            words.append(str(config_file(word)))
        elif joined:
            words.append(f"--config={config_file(joined[1])}")
        else:
            words.append(word)
        is_name = not is_name and word in ("--config", "-c")
        named = named or is_name or joined is not None
    return words if named else ["--config", str(config_file(DEFAULT)), *words]


def preset(name: str = DEFAULT, steps: int | None = None) -> RefinerSettings:
    """The settings of a preset, to look at or to change with :func:`dataclasses.replace`.

    Args:
        name: ``fast`` (150 steps), ``balanced`` (500), ``best`` (2000), or another file of ``configs/refine``, such as ``sga``.
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
