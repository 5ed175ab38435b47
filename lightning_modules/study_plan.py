"""Plan of a study: the runs of ``refine.py`` that a file of ``configs/studies`` lists, with all options checked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError

from lightning_modules.command_line import config_file
from lightning_modules.refinement_cli import CheckedRefinement
from sga.refinement.presets import CONFIGS
from sga.runs.folder import CLASSICAL

STUDIES = CONFIGS.parent / "studies"

ONE_DEVICE = "--trainer.devices=1"
"""Option of every run: with several devices, Lightning would start this command again per device in the middle of the study."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        name: Name of its folder.
        options: Options of ``refine.py``, ``--output`` among them.
        steps: Adam steps per image.
        images: Number of images in this process's share.
    """

    name: str
    options: tuple[str, ...]
    steps: int
    images: int

    @property
    def arguments(self) -> str:
        """Arguments of the command that does this run alone."""
        return shlex.join(self.options)


class _UniqueKeys(yaml.SafeLoader):
    """YAML loader that refuses a key that a mapping has twice; YAML itself keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = str(self.construct_object(key))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_plan(config: Path, output: Path, root: str, more: Sequence[str] = ()) -> list[PlannedRun]:
    """The runs of a study's file, with their options checked.

    Args:
        config: File of the study.
        output: Folder of the study.
        root: Folder or named set of images, as ``--data.root`` of ``refine.py``.
        more: Options for every run, after those of the file.

    Raises:
        ValueError: The file is not a study, or an option of a run is wrong.
        OSError: The file cannot be read, or there are no images.
    """
    try:
        content = yaml.load(config.read_text(), _UniqueKeys)  # noqa: S506  (a safe loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{config} cannot be read: {error}") from error
    if not isinstance(content, dict) or not set(content) <= {"common", "runs"} or not isinstance(content.get("runs"), dict):
        raise ValueError(f"{config} is no study: it needs `runs:`, options by the name of each run, and may have `common:`")
    if not content["runs"]:
        raise ValueError(f"{config} is no study: `runs:` names no run")
    common = _options("common", content.get("common"), config)
    runs = {str(name): _options(f"run {name}", own, config) for name, own in content["runs"].items()}
    return [_planned(name, {**common, **own}, config, output, root, more) for name, own in runs.items()]


def _options(owner: str, content: Any, config: Path) -> dict[str, Any]:
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{config}: {owner} needs options by their names, such as `{{config: sga}}`, not {_text(content)}")
    return content or {}


def _planned(name: str, options: Mapping[str, Any], config: Path, output: Path, root: str, more: Sequence[str]) -> PlannedRun:
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"{config}: {name} is not good as the name of a folder")
    if name == CLASSICAL:
        raise ValueError(f"{config}: no run can have the name {name}: the folder is that of the classical codecs' measurements")
    if "config" not in options:
        raise ValueError(f"{config}: run {name} names no config, such as `config: ssl`")
    try:
        path = config_file(str(options["config"]), CONFIGS)
    except ValueError as error:
        raise ValueError(f"{config}: run {name}: {error}") from error
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    own = (f"--{key}={_text(value)}" for key, value in options.items() if key != "config")
    folders = ("--data.root", root, "--output", str(output / name))
    arguments = ("--config", str(path), *folders, ONE_DEVICE, *own, *more)
    try:
        checked = CheckedRefinement(arguments, exit_on_error=False)
    except (ArgumentError, ValueError) as error:
        raise ValueError(f"{config}: run {name}: {error}") from error
    if (checked.config.data.root, checked.config.output) != (root, output / name):
        raise ValueError(f"{config}: run {name}: output and data.root are those of the study: give them on the command line")
    return PlannedRun(name, arguments, checked.config.model.steps, len(checked.config_init.data.share))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
