"""Tables of what finished runs reached: the final R-D loss by any setting that varies among them, with bootstrap intervals.

All losses are of the files: their bytes, and the 8-bit image that they decode to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.results import NOT_AVAILABLE
from reports.runs import Run, Study, comparable, shared_images
from reports.section import Options, Section, Table

BASE = "base"
LEVEL = 95
"""Per cent of an interval."""


class Change(NamedTuple):
    """By how many per cent a mean loss is above (positive) or below a reference's, and its interval over images."""

    percent: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:+.1f} to {self.high:+.1f})"
        return f"{self.percent:+.1f} %{interval}"


def change(losses: npt.ArrayLike, reference: npt.ArrayLike, samples: int = 2000, seed: int = 0) -> Change:
    """The ratio of two mean losses less 1, in per cent, and its bootstrap interval over images (percentiles).

    Images are drawn with replacement and keep both their losses, so that what all images share does not widen the interval.

    Args:
        losses: One an image, ``[n]``.
        reference: Of the same images, ``[n]``.
        samples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        The change; without an interval where there is one image.
    """
    own, other = np.asarray(losses, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    percent = float(100 * (own.mean() / other.mean() - 1))
    if len(own) < 2:
        return Change(percent, None, None)
    drawn = np.random.default_rng(seed).integers(len(own), size=(samples, len(own)))
    ratios = 100 * (own[drawn].mean(1) / other[drawn].mean(1) - 1)
    low, high = np.percentile(ratios, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Change(percent, float(low), float(high))


class Comparison:
    """Runs that compare, over the images that they share, against a reference.

    Args:
        runs: Of one checkpoint, lambda and distortion.
        reference: Name of one of them; ``None``: each run's own base, the encoder's latents.

    Raises:
        ValueError: There is no such run, or the runs share no image.
    """

    def __init__(self, runs: Sequence[Run], reference: str | None = None) -> None:
        self.runs, self.reference = runs, reference
        self.images = shared_images(runs)
        if not self.images:
            raise ValueError(f"the runs {', '.join(run.name for run in runs)} share no finished image")
        named = {run.name: run for run in runs}
        if reference is not None and reference not in named:
            raise ValueError(f"no run {reference} to compare with: there are {', '.join(named)}")
        self._reference = None if reference is None else self.losses(named[reference])

    def losses(self, run: Run, column: str = "rd_loss") -> list[float]:
        """R-D loss of each shared image."""
        return [getattr(run.by_image[image], column) for image in self.images]

    def change(self, run: Run) -> Change:
        """Of the run's mean loss against the reference's."""
        return change(self.losses(run), self._reference or self.losses(run, "rd_loss_base"))

    @property
    def note(self) -> str:
        """Says over what the means are, and against what."""
        against = "the unrefined latents" if self.reference is None else f"the run {self.reference}"
        interval = f" with a {LEVEL} % bootstrap interval over images" if len(self.images) > 1 else ""
        count = len(self.images)
        return f"Means over {count} image{'s' * (count > 1)} that all these runs have finished; change against {against}{interval}."

    @property
    def varied(self) -> list[str]:
        """Settings in which the runs differ, in the order of the configs."""
        keys = dict.fromkeys(key for run in self.runs for key in run.settings)
        return [key for key in keys if len({run.settings.get(key) for run in self.runs}) > 1]


def means_table(comparison: Comparison, label: str) -> Table:
    """A row a run, its base first: bpp, PSNR, MS-SSIM, R-D loss, and the change of the last."""
    first = comparison.runs[0]
    rows = [_row(BASE, "", first, "_base", comparison, None)]
    rows += [_row(run.name, run.method, run, "", comparison, comparison.change(run)) for run in comparison.runs if run.steps]
    cells = [[_cell(value, form) for value, form in zip(row, FORMS, strict=True)] for row in rows]
    data = [[*row[:-1], *(row[-1] or (None,) * 3)] for row in rows]
    columns = ("run", "method", "steps", "bpp", "PSNR dB", "MS-SSIM", "R-D loss", "seconds an image", "change")
    data_columns = (*columns[:-1], "change %", "low %", "high %")
    return Table(label, columns, cells, data_columns, data, comparison.note)


FORMS = ("", "", "", ".4f", ".2f", ".4f", ".4f", ".1f", "")


def _row(name: str, method: str, run: Run, suffix: str, comparison: Comparison, changed: Change | None) -> list[object]:
    means = [run.mean(f"{column}{suffix}", comparison.images) for column in ("bpp", "psnr_db", "ms_ssim", "rd_loss")]
    seconds = None if suffix else run.mean("seconds", comparison.images)
    return [name, method, 0 if suffix else run.steps, *means, seconds, changed]


def _cell(value: object, form: str) -> str:
    return NOT_AVAILABLE if value is None and form else "" if value is None else format(value, form) if form else str(value)


def settings_table(comparison: Comparison, label: str) -> Table:
    """A row a run, a column a setting in which the runs differ."""
    keys = comparison.varied
    rows = [(run.name, *(run.settings.get(key, "") for key in keys)) for run in comparison.runs]
    shared = ", ".join(f"{key} {value}" for key, value in comparison.runs[0].settings.items() if key not in keys)
    columns = ("run", *keys)
    return Table(f"Settings: {label}", columns, rows, columns, rows, f"Of all these runs: {shared}.")


def setting_tables(comparison: Comparison, label: str) -> list[Table]:
    """For each setting that varies, a table of the final R-D loss by it.

    A column is a value, a row a set of runs that agree in all else. Where a class varies, its own arguments belong to the value.
    """
    tables = []
    refined = [run for run in comparison.runs if run.steps]
    for key in comparison.varied:
        if "." in key and any(key.startswith(f"{other}.") for other in comparison.varied) and key not in _alone(refined, key):
            continue
        series: dict[str, dict[str, Run]] = {}
        for run in refined:
            if key in run.settings:
                series.setdefault(_others(comparison, run, key), {})[_value(comparison, run, key)] = run
        series = {others: runs for others, runs in series.items() if len(runs) > 1}
        if series:
            tables.append(_setting_table(comparison, f"{label}: final R-D loss by {key}", series))
    return tables


def _alone(runs: Sequence[Run], key: str) -> list[str]:
    """The key, where it has several values under one class."""
    parent = key.rsplit(".", 1)[0]
    by_class: dict[str | None, set[str]] = {}
    for run in runs:
        if key in run.settings:
            by_class.setdefault(run.settings.get(parent), set()).add(run.settings[key])
    return [key] if any(len(values) > 1 for values in by_class.values()) else []


def _value(comparison: Comparison, run: Run, key: str) -> str:
    own = [f"{name.removeprefix(f'{key}.')} {run.settings[name]}" for name in _below(comparison, run, key)]
    return ", ".join([run.settings[key], *own])


def _below(comparison: Comparison, run: Run, key: str) -> list[str]:
    return [name for name in comparison.varied if name.startswith(f"{key}.") and name in run.settings]


def _others(comparison: Comparison, run: Run, key: str) -> str:
    names = [name for name in comparison.varied if name != key and not name.startswith(f"{key}.") and name in run.settings]
    return ", ".join(run.settings[name] if name == "rounding" else f"{name} {run.settings[name]}" for name in names) or "all"


def _setting_table(comparison: Comparison, title: str, series: dict[str, dict[str, Run]]) -> Table:
    values = sorted({value for runs in series.values() for value in runs}, key=_by_number)
    rows, data = [], []
    for others, runs in series.items():
        cells = [others]
        for value in values:
            run = runs.get(value)
            if run is None:
                cells.append("")
                continue
            loss, changed = float(np.mean(comparison.losses(run))), comparison.change(run)
            cells.append(f"{loss:.4f}, {changed}")
            data.append((others, value, run.name, loss, *changed, len(comparison.images)))
        rows.append(cells)
    columns = ("others", "value", "run", "R-D loss", "change %", "low %", "high %", "images")
    return Table(title, ("other settings", *values), rows, columns, data, comparison.note)


def _by_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def section(study: Study, options: Options) -> Section:
    """Means, settings, and a table for each setting that varies, of each codec and lambda.

    Raises:
        ValueError: No runs of the study compare.
    """
    tables, left_out = [], []
    for label, runs in comparable(study.runs).items():
        inside = options.reference if options.reference in {run.name for run in runs} else None
        try:
            comparison = Comparison(runs, inside)
        except ValueError as error:
            left_out.append(f"{label}: {error}")
            continue
        tables += [means_table(comparison, label), settings_table(comparison, label), *setting_tables(comparison, label)]
    if not tables:
        raise ValueError("; ".join(left_out))
    for number, table in enumerate(tables):
        table.save(options.output / f"tables/{number:02d}_{'_'.join(table.title.replace(':', ' ').replace(',', ' ').split())}")
    return Section("Results", tables=tables, left_out=left_out)
