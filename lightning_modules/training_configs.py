"""Configurations of ``train.py`` by name: files of ``configs/train``, and published qualities from a table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from lightning_modules.command_line import config_file
from sga.published import quality_settings
from sga.refinement.presets import CONFIGS

FOLDER = CONFIGS.parent / "train"


def known_configs() -> list[str]:
    """Names of the files of ``configs/train``."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def training_configs(name: str) -> list[str]:
    """Values of ``--config`` for a name: the path of a file; for a published quality also its settings, as JSON.

    Args:
        name: Name of a file of ``configs/train`` (``scale_hyperprior``, ``length/short``), a path, or the name or path of a codec
            followed by a quality (``scale_hyperprior/mse_4``).

    Raises:
        ValueError: There is no such file or no such quality.
    """
    if Path(name).is_file():
        return [name]
    former = re.search(r"(?:^|/)quality/(?:cheng2020/)?(\w+)(?:\.yaml)?$", name)
    if former:
        codec = "cheng2020_anchor" if "cheng2020" in name else "scale_hyperprior"
        raise ValueError(
            f"--config {name}: qualities no longer have files: give codec and quality as one name, such as "
            f"--config {codec}/{former[1]} in place of --config {codec} --config {name}"
        )
    of_quality = re.fullmatch(r"(.+)/((?:mse|ms_ssim)_\d+)", name)
    if of_quality is None:
        return [str(config_file(name, FOLDER))]
    codec, quality = of_quality.groups()
    file = config_file(codec, FOLDER)
    try:
        class_path = yaml.safe_load(file.read_text())["model"]["codec"]["class_path"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"--config {name}: {file} names no codec in model.codec.class_path") from error
    settings = quality_settings(str(class_path).rsplit(".", 1)[-1], quality)
    return [str(file), json.dumps({"model": settings})]
