"""Tables of finished runs: means, settings, and the final R-D loss by each setting that varies, with bootstrap intervals.

All losses are measured from files: their bytes, and the 8-bit images that they decode to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reports.bootstrap import LEVEL, draws, interval
from reports.runs import Run, Study, comparable, method_names, shared_images, varied
from reports.section import Options, Section, Table, file_name, over_images
from sga.quality import ALWAYS, LATER, METRICS, RD_LOSS, SECONDS, Column, finite
from sga.runs.results import BASE as BASE_SUFFIX

BASE = "base"
OF_LOSSES = frozenset({"R-D loss", "change", "change %", "low %", "high %"})
"""Columns that tables of runs with a target lack."""
FIRST: dict[str, Column] = {**{name: METRICS[name] for name in ALWAYS}, "rd_loss": RD_LOSS}
NEWER: dict[str, Column] = {name: METRICS[name] for name in LATER}
"""Columns of ``results.csv`` that follow the changes in the table of means; those of :data:`FIRST` come before."""


class Change(NamedTuple):
    """Difference of a mean loss from the reference's in per cent, positive where it is higher, and its interval over images."""

    percent: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:+.1f} to {self.high:+.1f})"
        return f"{self.percent:+.1f} %{interval}"


def change(losses: npt.ArrayLike, reference: npt.ArrayLike, samples: int = 2000, seed: int = 0) -> Change:
    """The ratio of two mean losses less 1, in per cent, and its bootstrap interval over images (percentiles).

    Images are drawn with replacement and keep both their losses, so that differences between images that affect both losses alike
    do not widen the interval.

    Args:
        losses: Loss of each image, ``[n]``.
        reference: Loss of the same images in the reference, ``[n]``.
        samples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The change, without an interval where there is only one image.
    """
    own, other = np.asarray(losses, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    percent = float(100 * (own.mean() / other.mean() - 1))
    if len(own) < 2:
        return Change(percent, None, None)
    drawn = draws(len(own), samples, seed)
    return Change(percent, *interval(100 * (own[drawn].mean(1) / other[drawn].mean(1) - 1)))


class Comparison:
    """Comparison of runs with a reference, over the images that they share.

    Args:
        runs: Runs of one group of :func:`reports.runs.comparable`.
        reference: Name of the run to compare with; ``None`` for each run's own base, the encoder's latents.

    Raises:
        ValueError: No run has the name of the reference, or the runs share no image.
    """

    def __init__(self, runs: Sequence[Run], reference: str | None = None) -> None:
        self.runs, self.reference = runs, reference
        self.images = shared_images(runs)
        if not self.images:
            raise ValueError(f"the runs {', '.join(run.name for run in runs)} share no finished image")
        named = {run.name: run for run in runs}
        if reference is not None and reference not in named:
            raise ValueError(f"no run {reference} to compare with: there are {', '.join(named)}")
        against = None if reference is None else self.losses(named[reference])
        self._changes = {run.name: change(self.losses(run), against or self.losses(run, "rd_loss_base")) for run in runs}

    def losses(self, run: Run, column: str = "rd_loss") -> list[float]:
        """R-D loss of each shared image."""
        return run.values(column, self.images)

    def change(self, run: Run) -> Change:
        """Change of the run's mean loss against the reference's."""
        return self._changes[run.name]

    def shown_change(self, run: Run) -> str:
        """Text of a table's cell for the change."""
        return "reference" if run.name == self.reference else str(self.change(run))

    @property
    def note(self) -> str:
        """Note that names the images of the means and the reference."""
        means = over_images(len(self.images), len(self.runs))
        if self.runs[0].target is not None:
            return f"M{means[1:]}. Each image has a lambda of its own, so that R-D losses do not compare."
        against = "the unrefined latents" if self.reference is None else f"the run {self.reference}"
        interval = f" with a {LEVEL} % bootstrap interval over images" if len(self.images) > 1 else ""
        return f"M{means[1:]}; change against {against}{interval}."


def means_table(comparison: Comparison, label: str) -> Table:
    """The table of means, with a row for the base and one per run: metrics, R-D loss and its change; no losses with a target."""
    first, newer = ([column.heading for column in columns.values()] for columns in (FIRST, NEWER))
    names = ("run", "method", "steps", *first, "seconds an image")
    methods, images = method_names(comparison.runs), comparison.images
    cells, data = [], []

    def add(run: Run, suffix: str, words: Sequence[Any], seconds: float | None, change: str, changes: Sequence[Any]) -> None:
        own, other = ([run.mean(f"{name}{suffix}", images) for name in columns] for columns in (FIRST, NEWER))
        cells.append([*map(str, words), *_texts(FIRST, own), SECONDS.text(seconds), change, *_texts(NEWER, other)])
        data.append([*words, *own, seconds, *changes, *other])

    add(comparison.runs[0], BASE_SUFFIX, (BASE, "", 0), None, "", (None, None, None))
    for run in comparison.runs:
        if run.steps:
            words = (run.name, methods[run.name], run.steps)
            add(run, "", words, run.mean("seconds", images), comparison.shown_change(run), comparison.change(run))
    note = comparison.note if len(comparison.runs) > 1 else f"{comparison.note} Settings: {_same(comparison)}."
    note = " ".join([note, *_left_out(comparison)])
    data_columns = (*names, "change %", "low %", "high %", *newer)
    table = Table(label, (*names, "change", *newer), cells, data_columns, data, note)
    return table if comparison.runs[0].target is None else table.without(OF_LOSSES)


def _texts(columns: Mapping[str, Column], means: Sequence[float | None]) -> list[str]:
    return [column.text(mean) for column, mean in zip(columns.values(), means, strict=True)]


def _left_out(comparison: Comparison) -> list[str]:
    """Sentences with the number of images that a mean leaves out; where a run has no value at all, its cell is ``n/a``."""
    sides = [(comparison.runs[0], BASE_SUFFIX, BASE), *((run, "", run.name) for run in comparison.runs if run.steps)]
    sentences = []
    for name, column in {**FIRST, **NEWER}.items():
        missing = {
            label: sum(finite(v) is None for v in run.values(f"{name}{end}", comparison.images)) for run, end, label in sides
        }
        some = [f"{count} of {label}" for label, count in missing.items() if 0 < count < len(comparison.images)]
        if some:
            sentences.append(f"Images without {column.heading}, left out of its mean: {', '.join(some)}.")
    return sentences


def settings_table(comparison: Comparison, label: str) -> Table:
    """The table of settings, with a row per run and a column per setting in which the runs differ."""
    keys = varied(comparison.runs)
    rows = [(run.name, *(run.settings.get(key, "") for key in keys)) for run in comparison.runs]
    columns = ("run", *keys)
    return Table(f"Settings: {label}", columns, rows, columns, rows, f"The same in all these runs: {_same(comparison)}.")


def _same(comparison: Comparison) -> str:
    """Text of the settings in which the runs agree."""
    keys = varied(comparison.runs)
    return ", ".join(f"{key} {value}" for key, value in comparison.runs[0].settings.items() if key not in keys)


def setting_tables(comparison: Comparison, label: str) -> list[Table]:
    """A table of the final R-D loss per setting that varies.

    It has a column per value of the setting and a row per set of runs that agree in all other settings. Where the setting is a
    class, the arguments of the class count as part of its value.
    """
    tables = []
    refined = [run for run in comparison.runs if run.steps]
    keys = varied(refined)
    for key in keys:
        if _comes_with_its_class(refined, key):
            continue
        series: dict[tuple[str | None, ...], dict[str, Run]] = {}
        others = [name for name in keys if name != key and not name.startswith(f"{key}.")]
        for run in refined:
            if key in run.settings:
                row = series.setdefault(tuple(run.settings.get(name) for name in others), {})
                row[_value(run, key, keys)] = run
        rows = [row for row in series.values() if len(row) > 1]
        if rows:
            tables.append(_setting_table(comparison, label, key, others, rows))
    return tables


def _comes_with_its_class(runs: Sequence[Run], key: str) -> bool:
    """Whether a setting is an argument of a class that does not differ among the runs with the same class."""
    parent = key.rpartition(".")[0]
    by_class: dict[str | None, set[str]] = {}
    for run in runs:
        if key in run.settings:
            by_class.setdefault(run.settings.get(parent), set()).add(run.settings[key])
    return bool(parent) and all(len(values) == 1 for values in by_class.values())


def _value(run: Run, key: str, names: Sequence[str]) -> str:
    own = [
        f"{name.removeprefix(f'{key}.')} {run.settings[name]}"
        for name in names
        if name.startswith(f"{key}.") and name in run.settings
    ]
    return ", ".join([run.settings[key], *own])


def _setting_table(comparison: Comparison, label: str, key: str, others: Sequence[str], rows: Sequence[dict[str, Run]]) -> Table:
    keys = varied([run for row in rows for run in row.values()])
    values = sorted({value for row in rows for value in row}, key=_by_number)
    distinct = [name for name in others if name in keys and name != "rounding"]
    cells, data = [], []
    shown = {run.name for row in rows for run in row.values()}
    alone = ", ".join(run.name for run in comparison.runs if run.steps and run.name not in shown)
    note = f"{comparison.note} Not shown, as they differ from the others in more than this: {alone}." if alone else comparison.note
    for row in rows:
        settings = next(iter(row.values())).settings
        method = [] if key == "rounding" else [settings["rounding"]]
        name = ", ".join([*method, *(f"{name} {settings[name]}" for name in distinct if name in settings)]) or "all"
        cells.append([name, *(_loss(comparison, row.get(value)) for value in values)])
        for value, run in row.items():
            loss = float(np.mean(comparison.losses(run)))
            data.append((name, value, run.name, loss, *comparison.change(run), len(comparison.images)))
    columns = ("other settings", key, "run", "R-D loss", "change %", "low %", "high %", "images")
    title = f"{label}: final R-D loss by {key}"
    return Table(title, ("other settings", *values), cells, columns, data, note)


def _loss(comparison: Comparison, run: Run | None) -> str:
    return "" if run is None else f"{np.mean(comparison.losses(run)):.4f}, {comparison.shown_change(run)}"


def _by_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def section(study: Study, options: Options) -> Section:
    """The section with means, settings, and a table per setting that varies, for each codec and lambda.

    Raises:
        ValueError: No runs of the study can be compared.
    """
    tables, left_out = [], []
    for label, runs in comparable(study.runs).items():
        inside = options.reference if options.reference in {run.name for run in runs} else None
        try:
            comparison = Comparison(runs, inside)
        except ValueError as error:
            left_out.append(f"{label}: {error}")
            continue
        tables.append(means_table(comparison, label))
        if varied(runs):
            tables.append(settings_table(comparison, label))
            tables += setting_tables(comparison, label) if runs[0].target is None else []
    if not tables:
        raise ValueError("; ".join(left_out))
    for number, table in enumerate(tables):
        table.save(options.output / f"tables/{number:02d}_{file_name(table.title)}")
    return Section("Results", tables=tables, left_out=left_out)
