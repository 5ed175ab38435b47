"""Runs of ``refine.py``, read from their folders: settings and results. Nothing is computed again."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sga.codecs.checkpoint import EMBEDDED, EMBEDDED_PATH
from sga.quality import present
from sga.refinement.target import Target
from sga.runs.folder import CONFIG, RESULTS, is_run, names_with_results
from sga.runs.results import ImageResult, read_result


@dataclass(frozen=True)
class Run:
    """A run of ``refine.py``, finished or not.

    Attributes:
        name: Name of its folder, and its label in figures and tables.
        path: Folder of the run.
        config: Content of ``config.yaml``; an option that was left at ``None`` is not in it.
        results: Results of the finished images, in the order of their names; at least one.
        sources: SHA-256 of each original's file, by image.
        model_hash: Hash of the codec's weights; ``None`` where no result has it.
        damaged: Names of images whose result file cannot be read, or lacks a column that every version writes.
        outside: Names of images with a result file that ``results.csv`` does not cover: the job has renamed them, or was stopped.
        target: Target of every file, if any; each image then has a lambda of its own, and R-D losses cannot be compared.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    results: tuple[ImageResult, ...]
    sources: Mapping[str, str]
    model_hash: str | None
    damaged: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    target: Target | None = None

    @cached_property
    def by_image(self) -> Mapping[str, ImageResult]:
        """The results by the names of their images."""
        return {result.image: result for result in self.results}

    @property
    def steps(self) -> int:
        """Adam steps of the refinement; 0 where the run has unrefined files alone."""
        return self.results[0].steps

    @property
    def distortion(self) -> str:
        """Name of the distortion: ``mse`` or ``ms_ssim``."""
        return self.results[0].distortion

    @property
    def lmbda(self) -> float | None:
        """Lambda of all images; ``None`` where they differ."""
        lmbdas = {result.lmbda for result in self.results}
        return lmbdas.pop() if len(lmbdas) == 1 else None

    @property
    def trade(self) -> str:
        """The trade-off of rate against distortion, for people: ``lambda 0.013``, ``target 0.5 bpp``."""
        if self.target is not None:
            return f"target {self.target.value:g} {'bpp' if self.target.quantity == 'bpp' else 'dB'}"
        return "lambda of each image" if self.lmbda is None else f"lambda {self.lmbda:g}"

    @property
    def method(self) -> str:
        """Name of the method, for people: ``sigmoid scaled logit``; ``base`` for a run without steps."""
        return self.results[0].method.replace("_", " ") if self.steps else "base"

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Settings of the module and the seed, flat: ``rounding`` is the name of its class, ``rounding.a`` a setting of it.

        The checkpoint is relative to the folder that holds the run's folder.
        """
        absolute = Path(self.checkpoint).is_absolute()
        checkpoint = os.path.relpath(self.checkpoint, self.path.resolve().parent) if absolute else self.checkpoint
        return flat({**self.config["model"], "checkpoint": checkpoint, "seed": self.config.get("seed")})

    @property
    def checkpoint(self) -> str:
        """Checkpoint of the codec as given to the run; ``embedded`` for the embedded one, however it was given."""
        given = str(self.config["model"]["checkpoint"])
        path = Path(given)
        embedded = path.name == EMBEDDED_PATH.name and (not path.exists() or path.samefile(EMBEDDED_PATH))
        return EMBEDDED if embedded else given

    @property
    def model(self) -> str:
        """Identity of the codec: the hash of its weights; where that is not known, the checkpoint."""
        return self.model_hash or self.checkpoint

    def mean(self, column: str, images: Sequence[str]) -> float | None:
        """Mean of a column of ``results.csv`` over the named images that have a value; ``None`` where none has."""
        values = present(self.values(column, images))
        return float(np.mean(values)) if values else None

    def values(self, column: str, images: Sequence[str]) -> list[Any]:
        """Values of a column of ``results.csv`` for the named images."""
        return [self.by_image[image].row[column] for image in images]


@dataclass(frozen=True)
class Study:
    """Runs that are reported together.

    Attributes:
        path: Folder of the runs; for a study of one run, the folder of that run.
        runs: Runs in the order of their names, at least one.
        left_out: Reason per run in the folder that is not among ``runs``, by its name.
    """

    path: Path
    runs: tuple[Run, ...]
    left_out: Mapping[str, str]


def read_run(path: Path) -> Run:
    """The run in a folder, with its finished images: those of ``results.csv``, or all where it is not written yet.

    Raises:
        ValueError: The folder does not hold a run, or none of its images is finished.
    """
    try:
        config = yaml.safe_load((path / CONFIG).read_text())
        model = config["model"]
        class_path, checkpoint = model["rounding"]["class_path"], model["checkpoint"]
        target = Target.of(model.get("target_bpp"), model.get("target_psnr"))
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path} is no run of refine.py: it has no {CONFIG}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path / CONFIG} is not that of a run of refine.py") from None
    if not (isinstance(class_path, str) and isinstance(checkpoint, str)):
        raise ValueError(f"{path / CONFIG} does not name a method and a checkpoint")
    names = names_with_results(path)
    covered = _names_in_table(path)
    outside = () if covered is None else tuple(sorted(names - covered))
    found = {name: read_result(path, name) for name in sorted(names.difference(outside))}
    whole = {name: entry for name, entry in found.items() if entry is not None}
    damaged = tuple(name for name, entry in found.items() if entry is None)
    if not whole:
        if outside and not damaged:
            raise ValueError(f"{path}: its {RESULTS} covers none of its {len(outside)} results: run refine.py again")
        detail = f"{len(damaged)} result files are damaged or of an older version" if damaged else "no image is finished yet"
        raise ValueError(f"{path} ({class_path.rsplit('.', 1)[-1]}): {detail}")
    results = tuple(result for result, _ in whole.values())
    sources = {name: str(content.get("source", "")) for name, (_, content) in whole.items()}
    model_hash = next((str(content["model_hash"]) for _, content in whole.values() if "model_hash" in content), None)
    return Run(path.resolve().name, path, config, results, sources, model_hash, damaged, outside, target)


def _names_in_table(path: Path) -> set[str] | None:
    """Names of the images in a run's ``results.csv``; ``None`` where it is missing or damaged."""
    try:
        with (path / RESULTS).open(encoding="utf-8", newline="") as file:
            return {row["image"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        return None


def read_study(path: Path) -> Study:
    """The study of the runs in the subfolders of a folder, or of the one run whose folder it is; other subfolders are ignored.

    Raises:
        ValueError: There is no run with a finished image.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: give that of a run of refine.py, or one that holds several runs")
    if is_run(path):
        return Study(path, (read_run(path),), {})
    runs, left_out = [], {}
    for folder in sorted(path.iterdir()):
        if not is_run(folder):
            continue
        try:
            runs.append(read_run(folder))
        except ValueError as error:
            left_out[folder.name] = str(error)
    if not runs:
        reason = "; ".join(left_out.values()) or "give the folder of a run, or one that holds several"
        raise ValueError(f"{path} holds no finished run of refine.py: {reason}")
    return Study(path, tuple(runs), left_out)


def refined_runs(runs: Sequence[Run]) -> list[Run]:
    """Runs with at least one step.

    Raises:
        ValueError: No run has a step.
    """
    refined = [run for run in runs if run.steps]
    if not refined:
        raise ValueError("no run has a step")
    return refined


def comparable(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups of runs of one model, distortion, and lambda or target, by a label that names these.

    Runs of one group can be compared: by bpp and PSNR where they have a target, else by R-D loss.
    """
    groups: dict[tuple[str, str, Target | float | None], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.distortion, run.target or run.lmbda), []).append(run)
    labels: dict[str, list[Run]] = {}
    for (model, distortion, _), group in groups.items():
        trade = f"{'MSE' if distortion == 'mse' else 'MS-SSIM'}, {group[0].trade}"
        checkpoint = group[0].checkpoint
        names = (Path(checkpoint).stem if Path(checkpoint).suffix else checkpoint, group[0].settings["checkpoint"], model)
        labels[free_name([f"{name}, {trade}" for name in names], labels)] = group
    return labels


def free_name(candidates: Sequence[str], taken: Container[str]) -> str:
    """The first candidate that is not taken; where all are taken, the first one with a number."""
    numbered = (f"{candidates[0]} {number}" for number in count(2))
    return next(name for name in chain(candidates, numbered) if name not in taken)


def varied(runs: Sequence[Run]) -> list[str]:
    """Names of the settings in which runs differ, in the order of the configurations."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]


def method_names(runs: Sequence[Run]) -> dict[str, str]:
    """Method of each run, by the run's name, such as ``sigmoid scaled logit (a 1.33)``.

    In brackets are the method's own settings, where the runs of that method differ in them.
    """
    names = {}
    for run in runs:
        keys = varied([other for other in runs if other.method == run.method])
        own = [key for key in keys if key.startswith("rounding.") and key in run.settings]
        details = ", ".join(f"{key.removeprefix('rounding.')} {run.settings[key]}" for key in own)
        names[run.name] = f"{run.method} ({details})" if details else run.method
    return names


def relative(text: str, folder: Path) -> str:
    """A text whose absolute paths are made relative to a folder, since reports are read on other machines."""
    base = folder.resolve()
    for own in (folder.absolute(), base):
        text = text.replace(f"{own}/", "")
    return re.sub(r"(?<![\w./])/[\w.+@~-]+(/[\w.+@~-]+)+", lambda found: os.path.relpath(found[0], base), text)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration by dotted keys, without ``None``; a class becomes its name, with its arguments as keys below."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and "class_path" in value:
            found[prefix + key] = str(value["class_path"]).rsplit(".", 1)[-1]
            found |= flat(value.get("init_args") or {}, f"{prefix}{key}.")
        elif isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[prefix + key] = str(value)
    return found


def shared_images(runs: Sequence[Run]) -> list[str]:
    """Names of the images that every run has finished, sorted; runs are compared over these alone.

    Raises:
        ValueError: An image of one name is another photograph in another run.
    """
    names = sorted(set.intersection(*(set(run.by_image) for run in runs)))
    for name in names:
        sources = {run.sources[name]: run.name for run in runs}
        if len(sources) > 1:
            raise ValueError(f"{name} is not the same photograph in the runs {' and '.join(sorted(sources.values())[:2])}")
    return names
