"""One style for the figures of all reports, and their files: PNG, SVG, and a CSV of the numbers drawn.

Figures of one panel fit a column of a paper, 3.4 inches wide; figures of several fit its whole width of 7 inches. Their letters
have 7 or 8 points. Lines differ in colour (the palette of Okabe and Ito, which colour-blind people can distinguish), in dashes and
in markers, so that ten methods can be told apart in print.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sga.files import replacing
from sga.quality import NOT_AVAILABLE

COLUMN, PAGE = 3.4, 7.0
"""Widths of a figure in inches: one column of a paper, and both."""

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Palette of Okabe and Ito without its yellow, which is too light for a thin line on white."""

DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.2, 1, 1.2)), (0, (5, 1.2, 1, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")

STYLE: Any = {  # matplotlib's type names every key
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names of images and runs may hold a $
    "svg.hashsalt": "reports",  # the same figure is the same file
    "savefig.dpi": 200,
}


def style() -> AbstractContextManager[None]:
    """Context in which matplotlib has the style of the reports: ``with style():``."""
    return matplotlib.rc_context(STYLE)


def new_figure(rows: int = 1, columns: int = 1, width: float = COLUMN, height: float = 2.4) -> tuple[Figure, list[Axes]]:
    """A figure of ``rows`` x ``columns`` panels, and its panels, row by row.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        width: Width of the figure in inches.
        height: Height of the figure in inches.
    """
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def line(number: int) -> dict[str, Any]:
    """Look of line ``number`` as arguments of ``Axes.plot``; numbers 0 to 34 all look different."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markerfacecolor": "white",
        "markeredgewidth": 0.8,
    }


def lines(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A :func:`line` per name, in the given order."""
    return {name: line(number) for number, name in enumerate(names)}


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Draws one legend for all panels, below them, from the labelled artists of ``axes``."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), columnspacing=1.2)


def save(figure: Figure, path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Path]:
    """Writes a figure as PNG (200 dots per inch) and SVG, and its numbers as CSV.

    Args:
        figure: Figure to write.
        path: Path of the files without a suffix; its folder is created.
        columns: Names of the columns of the CSV, with units.
        rows: Rows of the CSV; ``None`` becomes ``n/a``.

    Returns:
        Paths of the PNG, the SVG and the CSV.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg, table = (path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg", "csv"))
    with style():
        with replacing(png) as temporary:
            figure.savefig(temporary)
        with replacing(svg) as temporary:
            figure.savefig(temporary, metadata={"Date": None})
    write_csv(table, columns, rows)
    return [png, svg, table]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV of rows under the names of their columns; ``None`` becomes ``n/a``."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([NOT_AVAILABLE if value is None else value for value in row] for row in rows)
