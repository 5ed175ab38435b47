"""The refinements that have a name, ``configs/refine/{fast,balanced,best}.yaml``, for programs other than ``refine.py``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from lightning_modules.refinement_module import step_dtype
from lightning_modules.refiner import RefinerSettings

CONFIGS = Path(__file__).parents[1] / "configs" / "refine"
PRESETS = ("fast", "balanced", "best")
DEFAULT = "balanced"


def preset(name: str = DEFAULT, steps: int | None = None, device: torch.device | str = "cpu") -> RefinerSettings:
    """The settings of ``configs/refine/NAME.yaml``, in bf16 where that is fast.

    Args:
        name: Of the file; the presets or any other that names all that it needs.
        steps: In place of the file's.
        device: Of the refinement.
    """
    parser = ArgumentParser()
    parser.add_class_arguments(RefinerSettings, "model", skip={"dtype"})
    found: RefinerSettings = parser.instantiate_classes(parser.parse_path(CONFIGS / f"{name}.yaml")).model
    return replace(found, steps=found.steps if steps is None else steps, dtype=step_dtype("auto", torch.device(device)))
