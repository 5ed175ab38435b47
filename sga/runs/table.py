"""Tables that the commands print at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sga.quality import ALWAYS, LATER, METRICS, RD_LOSS, SECONDS, Column
from sga.runs.results import BASE, ImageResult

PAIRS: dict[str, Column] = {**{name: METRICS[name] for name in ALWAYS}, "rd_loss": RD_LOSS}
"""Columns of the table of images, each with a value before and after; the means of other metrics are in a table of their own."""


def print_table(results: Sequence[ImageResult], means: Mapping[str, float | None]) -> None:
    """Prints the results of images before and after refinement, and the means of the job."""
    rows = [(result.image, _cells(result.row)) for result in results]
    mean = _cells(means) if len(results) != 1 and means["rd_loss"] is not None else None
    headings = [*(column.heading for column in PAIRS.values()), "change", SECONDS.heading]
    print_rows("base (the encoder's latents) -> refined, measured from files", headings, rows, mean)
    if means["rd_loss"] is not None:
        print_other_means(means, {"base": BASE, "refined": ""})


def print_rows(
    title: str, headings: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]], mean: Sequence[str] | None = None
) -> None:
    """Prints a row per image, and one of the means."""
    table = Table(box=SIMPLE, title=title)
    table.add_column("image")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for image, cells in rows:
        table.add_row(image, *cells)
    if mean is not None:
        table.add_section()
        table.add_row("mean", *mean, style="bold")
    _print(table)


def print_other_means(means: Mapping[str, float | None], suffixes: Mapping[str, str]) -> None:
    """Prints the means of the metrics that the table of images has no room for, a row per metric.

    Args:
        means: Means by column.
        suffixes: Suffix of the columns of ``means``, by the heading under which they are printed.
    """
    table = Table(box=SIMPLE, title="means of other metrics")
    table.add_column("metric")
    for heading in suffixes:
        table.add_column(heading, justify="right")
    table.add_column("better")
    for name in LATER:
        metric = METRICS[name]
        table.add_row(metric.heading, *(metric.text(means[f"{name}{suffix}"]) for suffix in suffixes.values()), metric.better)
    _print(table)


def _print(table: Table) -> None:
    # Names are not markup: [copy] and :smile: are printed as they are.
    width = None if Console().is_terminal else 120
    Console(width=width, markup=False, emoji=False).print(table)


def _cells(values: Mapping[str, float | None]) -> list[str]:
    pairs = [f"{column.text(values[f'{name}{BASE}'])} -> {column.text(values[name])}" for name, column in PAIRS.items()]
    before, after = values[f"rd_loss{BASE}"], values["rd_loss"]
    assert before is not None and after is not None
    return [*pairs, f"{100 * (after / before - 1):+.1f} %", SECONDS.text(values["seconds"])]
