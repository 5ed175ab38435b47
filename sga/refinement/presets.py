"""The refinements that have a name: the files of ``configs/refine``, and ``fast``, ``balanced`` and ``best`` among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from sga.refinement.settings import RefinerSettings, step_dtype

CONFIGS = Path(__file__).parents[2] / "configs" / "refine"
PRESETS = ("fast", "balanced", "best")
DEFAULT = "balanced"


def preset(name: str = DEFAULT, steps: int | None = None) -> RefinerSettings:
    """The settings of ``configs/refine/NAME.yaml``, in bf16 where the processor multiplies in it.

    Args:
        name: Of the file; the presets or any other that names all that it needs.
        steps: In place of the file's.
    """
    parser = ArgumentParser()
    parser.add_class_arguments(RefinerSettings, "model", skip={"dtype"})
    found: RefinerSettings = parser.instantiate(parser.parse_path(CONFIGS / f"{name}.yaml")).model
    return replace(found, steps=found.steps if steps is None else steps, dtype=step_dtype("auto", torch.device("cpu")))
