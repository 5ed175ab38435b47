"""Curves of rate against quality from the runs of a study.

A *family* is the checkpoints of one architecture trained for one distortion; a model of variable rate is one by itself. The kinds
of curves:

- The base of a family has a point per checkpoint, or per lambda of a model of variable rate, from the files of the encoder's
  latents in its runs.
- A method has a point per run: runs of a family that differ only in the checkpoint, each at the lambda of its checkpoint; or, of
  a model of variable rate, runs that differ only in lambda.
- Semi-multi-rate has a point per run: runs of one checkpoint of one rate that differ only in the given ``lmbda``, and the run at
  the checkpoint's own lambda.
- Targets have a point per target: runs of one checkpoint that differ only in the value of ``target_bpp``, or of ``target_psnr``,
  and in the ``lmbda`` where the search starts.
- A classical codec has a point per quality, from ``STUDY/classical`` (:mod:`reports.classical`).

Runs without steps give points of the base alone. A point is the mean over images of bpp and of a metric of
:data:`sga.quality.PLOTTED`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from reports.classical import read_measurements
from reports.runs import Run, Study, free_name, method_names
from sga.codecs.checkpoint import CheckpointError
from sga.codecs.zoo import ZOO, zoo_model
from sga.distortion import DistortionName
from sga.loading import load_codec
from sga.published import STANDS_FOR
from sga.quality import ALWAYS, METRICS, PLOTTED, Floats, Quality
from sga.runs.folder import CLASSICAL, IMAGES


@dataclass(frozen=True)
class RatePoint:
    """Metrics of each image at one trade-off between rate and quality, which the label names."""

    label: str
    images: Mapping[str, Quality]


@dataclass(frozen=True)
class RateCurve:
    """Points of one method.

    Attributes:
        name: Name of the curve, unique in a study.
        kind: Origin of the points: unrefined files, refined files, or a classical codec.
        points: Points in no order, at least one.
    """

    name: str
    kind: Literal["base", "method", "classical"]
    points: tuple[RatePoint, ...]

    def images(self, metric: str) -> set[str]:
        """Names of the images that have the metric at every point."""
        return set.intersection(
            *({name for name, found in point.images.items() if getattr(found, metric) is not None} for point in self.points)
        )

    def values(self, images: Sequence[str], metric: str) -> tuple[Floats, Floats]:
        """Values of bpp and of the metric at each point, ``[points, images]`` each, ascending in the mean bpp."""
        bpp = np.array([[point.images[image].bpp for image in images] for point in self.points])
        quality = np.array([[getattr(point.images[image], metric) for image in images] for point in self.points])
        order = bpp.mean(1).argsort(kind="stable")
        return bpp[order], quality[order]

    def means(self, images: Sequence[str], metric: str) -> tuple[Floats, Floats]:
        """Mean bpp and mean quality in dB (:func:`in_db`) of each point, ``[points]``, ascending in bpp."""
        bpp, quality = self.values(images, metric)
        return bpp.mean(1), in_db(quality.mean(1), metric)


def in_db(quality: Floats, metric: str) -> Floats:
    """Means of a metric of :data:`sga.quality.PLOTTED` in dB that rise with quality; see :class:`sga.quality.Decibels`."""
    decibels = METRICS[metric].decibels
    assert decibels is not None
    return decibels.of(quality)


def plotted(curves: Sequence[RateCurve]) -> list[str]:
    """Names of the metrics to draw: those that every version has, and newer ones that some file of the curves has."""
    files = [quality for curve in curves for point in curve.points for quality in point.images.values()]
    return [name for name in PLOTTED if name in ALWAYS or any(getattr(quality, name) is not None for quality in files)]


def shared(curves: Sequence[RateCurve], metric: str) -> list[str]:
    """Names of the images that have the metric at every point of every curve, sorted."""
    return sorted(set.intersection(*(curve.images(metric) for curve in curves)))


class Model(NamedTuple):
    """Published family of a checkpoint, the lambda of its training (``None`` where not known), and whether its rate varies."""

    family: str
    lmbda: float | None
    variable_rate: bool = False


@cache
def model(checkpoint: str) -> Model:
    """Family and lambda of a checkpoint. Where it can no longer be read, the family is its name without the number at the end."""
    try:
        if checkpoint.startswith(ZOO):  # its name says all, and a report on somebody's run downloads nothing
            published = zoo_model(checkpoint)
            return Model(_family(published.architecture, published.distortion), published.lmbda)
        loaded = load_codec(checkpoint)
    except (CheckpointError, OSError):
        name = re.sub(r"([_-]?lmbda)?[_-]?[0-9.]+$", "", re.sub(r"\.(safetensors|ckpt|pth|pt|tar)$", "", checkpoint))
        return Model(Path(name).name, None)
    architecture = loaded.codec.published_as or type(loaded.codec).__name__
    architecture = STANDS_FOR.get(architecture, architecture)
    return Model(_family(architecture, loaded.distortion), loaded.lmbda, loaded.codec.variable_rate)


def _family(architecture: str, distortion: DistortionName) -> str:
    return f"{architecture} for {'MSE' if distortion == 'mse' else 'MS-SSIM'}"


def _family_of(run: Run) -> str:
    found = model(run.checkpoint)
    return f"{found.family}, {Path(run.checkpoint).name}" if found.variable_rate else found.family


def study_curves(study: Study) -> list[RateCurve]:
    """Curves of a study: the bases, then the methods by name, then the classical codecs.

    Raises:
        ValueError: Runs, or the classical measurements, have different photographs under one name, or a file is damaged.
    """
    sources: dict[str, str] = {}
    for run in study.runs:
        _check_sources(sources, run.sources, run.name)
    families = list(dict.fromkeys(_family_of(run) for run in study.runs))
    bases = [
        RateCurve("base" if len(families) == 1 else f"base, {family}", "base", _base_points(study.runs, family))
        for family in families
    ]
    methods = [
        RateCurve(name, "method", tuple(RatePoint(run.trade, _refined(run)) for run in runs))
        for name, runs in _groups(study.runs).items()
    ]
    return [*bases, *sorted(methods, key=lambda curve: curve.name), *classical_curves(study.path / CLASSICAL, sources)]


def classical_curves(folder: Path, sources: dict[str, str]) -> list[RateCurve]:
    """Curves of the classical codecs in a folder of measurements, empty where there is no such folder.

    Args:
        folder: Folder of the measurements.
        sources: SHA-256 of the photographs of the study by name; others, which it had at another time, do not count. Where it is
            empty all count, and are added.

    Raises:
        ValueError: A photograph is not the one of ``sources``, or a file is damaged.
    """
    found: dict[str, dict[int, dict[str, Quality]]] = {}
    paths = sorted((folder / IMAGES).glob("*.json"))
    for path in [path for path in paths if path.stem in sources] if sources else paths:
        source, rows = read_measurements(path)
        _check_sources(sources, {path.stem: source}, CLASSICAL)
        for row in rows:
            images = found.setdefault(row.codec, {}).setdefault(row.quality, {})
            images[path.stem] = row.measured
    return [
        RateCurve(codec, "classical", tuple(RatePoint(f"quality {quality}", images) for quality, images in points.items()))
        for codec, points in found.items()
    ]


def _check_sources(known: dict[str, str], new: Mapping[str, str], where: str) -> None:
    for image, source in new.items():
        if source and known.setdefault(image, source) != source:
            raise ValueError(f"{image} is not the same photograph in {where} as in the other runs of the study")


def _base_points(runs: Iterable[Run], family: str) -> tuple[RatePoint, ...]:
    points: dict[tuple[str, str], dict[str, Quality]] = {}
    names: dict[tuple[str, str], str] = {}
    members = [run for run in runs if _family_of(run) == family]
    # With a target each image has a gain of its own, and the mean over such images is no point of the curve over lambda.
    for run in [run for run in members if run.target is None] or members:
        # The base of a model of one rate is the same at every lambda; one of variable rate has a gain for each.
        varies = model(run.checkpoint).variable_rate
        key = run.model, run.trade if varies else ""
        points[key] = {result.image: result.base for result in run.results} | points.get(key, {})
        names[key] = run.trade if varies else Path(run.checkpoint).name
    return tuple(RatePoint(names[key], images) for key, images in points.items())


def _refined(run: Run) -> dict[str, Quality]:
    return {result.image: result.refined for result in run.results}


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs with steps by the name of their curve; a run at its checkpoint's own lambda can be on two curves, one of a model of
    variable rate is on one."""
    refined = [run for run in runs if run.steps > 0 and run.target is None]
    own: dict[tuple[object, ...], list[Run]] = {}
    given: dict[tuple[object, ...], list[Run]] = {}
    for run in refined:
        if model(run.checkpoint).variable_rate or _at_own_lmbda(run):
            own.setdefault((_family_of(run), *_settings(run)), []).append(run)
        else:
            given.setdefault((run.model, *_settings(run)), []).append(run)
    for key, group in given.items():
        group += [run for run in refined if _at_own_lmbda(run) and (run.model, *_settings(run)) == key]
    targeted: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if run.steps > 0 and run.target is not None:
            targeted.setdefault((run.model, run.target.quantity, *_settings(run)), []).append(run)
    methods = method_names(runs)
    named: dict[str, list[Run]] = {}
    for key, group in own.items():
        name = _name(group, methods)
        named[free_name([name, f"{name}, {key[0]}"], named)] = group
    for group in given.values():
        name = f"{_name(group, methods)}, one model"
        named[free_name([name, f"{name}, {Path(group[0].checkpoint).name}"], named)] = group
    for key, group in targeted.items():
        name = f"{_name(group, methods)}, targets of {'bpp' if key[1] == 'bpp' else 'PSNR'}"
        named[free_name([name, f"{name}, {Path(group[0].checkpoint).name}"], named)] = group
    return named


def _settings(run: Run) -> tuple[tuple[str, str], ...]:
    left_out = ("checkpoint", "lmbda", "distortion", "target_bpp", "target_psnr")
    return (*sorted((key, value) for key, value in run.settings.items() if key not in left_out), ("distortion", run.distortion))


def _at_own_lmbda(run: Run) -> bool:
    given, trained = run.settings.get("lmbda"), model(run.checkpoint).lmbda
    return given is None or (trained is not None and math.isclose(float(given), trained, rel_tol=1e-6))


def _name(runs: Sequence[Run], methods: Mapping[str, str]) -> str:
    """Words that the names of the runs share: ``ssl`` for ``ssl_lmbda0.0035`` and ``ssl_lmbda0.013``; else method and steps."""
    words = [re.split(r"[_\s]+", run.name) for run in runs]
    common = [word for word in words[0] if all(word in others for others in words)]
    return "_".join(common) or f"{methods[runs[0].name]}, {runs[0].steps} steps"
