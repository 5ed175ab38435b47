"""What ``train.py test`` measured: a CSV, a summary, and the table of the end with the published point."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sga.files import write_atomically
from sga.published import PublishedPoint
from sga.quality import rd_loss
from sga.rate_distortion import Objective
from sga.runs.results import NOT_AVAILABLE


@dataclass(frozen=True)
class FileResult:
    """A row of ``results.csv``; all is of the written and decoded file but ``bpp_estimated``, which is by the densities.

    ``None`` where a number does not exist: PSNR of a perfect image, MS-SSIM of one with a side under 161 pixels.
    """

    image: str
    height: int
    width: int
    bpp: float
    bpp_estimated: float
    psnr_db: float | None
    ms_ssim: float | None
    rd_loss: float | None


COLUMNS = tuple(field.name for field in fields(FileResult))
MEASURED = {"bpp": ".4f", "bpp_estimated": ".4f", "psnr_db": ".2f", "ms_ssim": ".4f", "rd_loss": ".4f"}
"""Columns that have a mean, and how they are printed."""
TITLES = ("bpp", "estimated bpp", "PSNR dB", "MS-SSIM", "R-D loss")


@dataclass(frozen=True)
class Evaluation:
    """All images of a test.

    Attributes:
        results: One an image.
        objective: Of the R-D loss.
        published: The point to compare with, if there is one.
    """

    results: Sequence[FileResult]
    objective: Objective
    published: PublishedPoint | None

    def means(self) -> dict[str, float | None]:
        """Mean of each column over the images that have it."""
        means: dict[str, float | None] = {}
        for column in MEASURED:
            values = [value for result in self.results if (value := getattr(result, column)) is not None]
            means[column] = sum(values) / len(values) if values else None
        return means

    def rd_loss_of_means(self) -> float | None:
        """The Lagrangian of the mean bpp and the mean PSNR (or MS-SSIM): what a published point can be compared with."""
        means = self.means()
        assert means["bpp"] is not None
        return rd_loss(self.objective, means["bpp"], means["psnr_db"], means["ms_ssim"])

    def gap_percent(self) -> float | None:
        """By how much :meth:`rd_loss_of_means` lies above that of the published point."""
        own = self.rd_loss_of_means()
        return None if own is None or self.published is None else 100 * (own / self.published.rd_loss - 1)

    def summary(self) -> dict[str, Any]:
        """For ``summary.json``."""
        published = None if self.published is None else {**asdict(self.published), "rd_loss": self.published.rd_loss}
        return {
            "images": len(self.results),
            "without_ms_ssim": sum(result.ms_ssim is None for result in self.results),
            "lmbda": self.objective.lmbda,
            "distortion": self.objective.distortion,
            "means": self.means(),
            "rd_loss_of_means": self.rd_loss_of_means(),
            "published": published,
            "gap_percent": self.gap_percent(),
        }


def write_evaluation(evaluation: Evaluation, folder: Path, origin: Mapping[str, Any]) -> None:
    """Writes ``results.csv`` and ``summary.json``, the latter with ``origin``: what was tested."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for result in evaluation.results:
        writer.writerow({name: NOT_AVAILABLE if value is None else value for name, value in asdict(result).items()})
    write_atomically(folder / "results.csv", text.getvalue().encode())
    write_atomically(folder / "summary.json", json.dumps({**origin, **evaluation.summary()}, indent=2).encode())


def print_evaluation(evaluation: Evaluation) -> None:
    """A row an image, the means, and the published point with the gap to it."""
    table = Table(box=SIMPLE, title="measured from files")
    table.add_column("image")
    for title in TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for result in evaluation.results:
        table.add_row(result.image, *_cells(asdict(result)))
    table.add_section()
    table.add_row("mean", *_cells(evaluation.means()), style="bold")
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    published, gap = evaluation.published, evaluation.gap_percent()
    if published is not None and gap is not None:
        print(
            f"published {published.architecture}, lambda {published.lmbda:g}, {published.distortion}, means over Kodak: "
            f"{published.bpp:.4f} bpp, {published.psnr_db:.2f} dB, MS-SSIM {published.ms_ssim:.4f}\n"
            f"R-D loss of the means: {evaluation.rd_loss_of_means():.4f}, published {published.rd_loss:.4f}, gap {gap:+.1f} %"
        )


def _cells(values: Mapping[str, Any]) -> list[str]:
    return [NOT_AVAILABLE if values[name] is None else format(values[name], form) for name, form in MEASURED.items()]
