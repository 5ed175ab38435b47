"""Refines a set of images in many ways: ``python -m study --config configs/studies/X.yaml --data.root DIR --output STUDY``.

The file lists runs of ``refine.py`` by name; each leaves its folder ``STUDY/NAME``, with all that a run of that command leaves::

    common: {model.steps: 500}          # options of every run
    runs:
      sga: {config: sga}                # a file of configs/refine, or the path of one
      linear_0.4: {config: linear, model.temperature.init_args.tau_max: 0.4}

Other options of ``refine.py`` on the command line go to every run and come last: ``--data.limit 2 --model.steps 20`` tries a study
out. Before the first run starts, the options of all are checked and their models built; ``--dry-run`` does that and prints the
commands.

Running it again does what is left, image by image. A run that fails is named at the end and the others go on. Several processes
share the images with ``--data.shard I/N`` (``srun`` does so by itself); each process uses one device.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import traceback
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning_fabric.utilities.exceptions import MisconfigurationException

import lightning_modules.quiet  # noqa: F401  (before the project's other modules)
import refine
from data.refinement_data import RefinementDataModule
from lightning_modules.refinement_module import RefinementModule
from reports.points import CLASSICAL
from sga.cli import INTERRUPTED, TERMINATED, errors_in_one_line
from sga.refinement.presets import config_file

ONE_DEVICE = "--trainer.devices=1"
"""Several would make Lightning start this command again for each of them, in the middle of the study."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        name: Of its folder.
        options: For ``refine.py``, ``--output`` among them.
        steps: Adam steps an image.
        images: Of this process's share.
    """

    name: str
    options: tuple[str, ...]
    steps: int
    images: int

    @property
    def command(self) -> str:
        """What does the same alone."""
        return shlex.join(["python", "refine.py", *self.options])


class _Checked(refine.RefinementCLI):
    """Builds the model and the data of a run, and no trainer."""

    def instantiate_classes(self) -> None:
        self.config_init = self.parser.instantiate(self.config)


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML itself keeps the last."""

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
        config: The file.
        output: Folder of the study.
        root: Images, as for ``refine.py``.
        more: Options for every run, after the file's.

    Raises:
        ValueError: The file is no study, or an option of a run is wrong.
        OSError: The file cannot be read, or there are no images.
    """
    try:
        content = yaml.load(config.read_text(), _UniqueKeys)
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
        path = config_file(str(options["config"]))
    except ValueError as error:
        raise ValueError(f"{config}: run {name}: {error}") from error
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    own = (f"--{key}={_text(value)}" for key, value in options.items() if key != "config")
    folders = ("--data.root", root, "--output", str(output / name))
    arguments = ("--config", str(path), *folders, ONE_DEVICE, *own, *more)
    try:
        checked = _Checked(
            RefinementModule,
            RefinementDataModule,
            run=False,
            args=list(arguments),
            save_config_callback=None,
            trainer_defaults=refine.TRAINER_DEFAULTS,
            seed_everything_default=False,
            parser_kwargs={"exit_on_error": False},
        )
    except (ArgumentError, ValueError) as error:
        raise ValueError(f"{config}: run {name}: {error}") from error
    if (checked.config.data.root, checked.config.output) != (root, output / name):
        raise ValueError(f"{config}: run {name}: output and data.root are those of the study: give them on the command line")
    return PlannedRun(name, arguments, checked.config.model.steps, len(checked.config_init.data.share))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def run(planned: PlannedRun) -> bool:
    """Refines what is left of a run; False where an image failed or the run could not start.

    Raises:
        SystemExit: A signal stopped it.
    """
    try:
        return refine.main(list(planned.options)) == 0
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            raise
        return not stop.code
    except Exception:  # one run's trouble must not end a study of days
        traceback.print_exc()
        return False


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the study, a file of configs/studies")
    parser.add_argument("--data.root", dest="root", default="samples", metavar="DIR", help="images, as for refine.py")
    parser.add_argument("--output", type=Path, required=True, metavar="STUDY", help="folder of the runs")
    parser.add_argument("--dry-run", action="store_true", help="check all options, print the commands and stop")
    options, more = parser.parse_known_args(args)
    with errors_in_one_line(MisconfigurationException):
        output: Path = options.output
        plan = read_plan(options.config, output, options.root, more)
        for number, planned in enumerate(plan, 1):
            print(f"[{number}/{len(plan)}] {planned.command}")
        work = sum(planned.steps * planned.images for planned in plan)
        print(f"{len(plan)} runs, {sum(planned.steps for planned in plan)} steps an image, {work} image-steps")
        return 0 if options.dry_run else _run_all(plan, output)


def _run_all(plan: Sequence[PlannedRun], output: Path) -> int:
    failed = []
    for number, planned in enumerate(plan, 1):
        print(f"\n[{number}/{len(plan)}] {planned.name}: {planned.images} images, {planned.steps} steps", flush=True)
        if not run(planned):
            failed.append(planned.name)
    print(
        f"\n{len(plan) - len(failed)} of {len(plan)} runs are finished in {output}; a table of them: tensorboard --logdir {output}"
    )
    print(f"report: python -m reports {output} -o {output / 'report'}")
    for name in failed:
        print(f"failed: {name} (see above)", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
