"""Results of ``train.py test``: a CSV, a summary, and the printed table with the published point."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sga.files import write_atomically
from sga.published import PublishedPoint, whole_kodak
from sga.quality import ALWAYS, BPP_ESTIMATED, LATER, METRICS, NOT_AVAILABLE, RD_LOSS, Column, Quality
from sga.rate_distortion import Objective
from sga.runs.folder import RESULTS, SUMMARY
from sga.runs.summary import Means
from sga.runs.table import print_other_means, print_rows

PRINTED: dict[str, Column] = {
    "bpp": METRICS["bpp"],
    "bpp_estimated": BPP_ESTIMATED,
    **{name: METRICS[name] for name in ALWAYS},
    "rd_loss": RD_LOSS,
}
"""Columns of the printed table."""
MEASURED: dict[str, Column] = {**PRINTED, **{name: METRICS[name] for name in LATER}}
"""Columns that have a mean."""


@dataclass(frozen=True)
class FileResult:
    """A row of ``results.csv``.

    Attributes:
        image: Name of the image.
        height: Height in pixels.
        width: Width in pixels.
        quality: Metrics of the written and decoded file.
        bpp_estimated: Bits per pixel by the densities.
        rd_loss: R-D loss of the file; ``None`` where its distortion is MS-SSIM and the image is too small for that.
    """

    image: str
    height: int
    width: int
    quality: Quality
    bpp_estimated: float
    rd_loss: float | None

    @cached_property
    def row(self) -> dict[str, Any]:
        """The values by the names of the columns."""
        own = {"image": self.image, "height": self.height, "width": self.width}
        values = {**self.quality.columns(), "bpp_estimated": self.bpp_estimated, "rd_loss": self.rd_loss}
        return own | {column: values[column] for column in MEASURED}


@dataclass(frozen=True)
class Evaluation:
    """Results of all images of a test.

    Attributes:
        results: Result of each image, at least one.
        objective: Objective of the R-D loss.
        published: Published point of the codec and the objective, if there is one.
    """

    results: Sequence[FileResult]
    objective: Objective
    published: PublishedPoint | None

    @cached_property
    def _means(self) -> Means:
        means = Means(MEASURED)
        for result in self.results:
            means.add(result.row)
        return means

    def means(self) -> dict[str, float | None]:
        """Mean of each column over the images that have a value; ``None`` where none has."""
        return self._means.compute()

    def rd_loss_of_means(self) -> float | None:
        """R-D loss of the mean bpp and the mean PSNR (or MS-SSIM), to compare with a published point."""
        return Quality.from_values(self.means()).loss(self.objective)

    def compared(self) -> PublishedPoint | None:
        """The published point, where the images are those that it was measured on."""
        return self.published if whole_kodak({result.image: result.height * result.width for result in self.results}) else None

    def gap_percent(self) -> float | None:
        """Gap in per cent of :meth:`rd_loss_of_means` to that of the published point, positive where it is higher, on Kodak."""
        own, published = self.rd_loss_of_means(), self.compared()
        return None if own is None or published is None else 100 * (own / published.rd_loss - 1)

    def summary(self) -> dict[str, Any]:
        """Content of ``summary.json``."""
        point = self.compared()
        published = None if point is None else {**asdict(point), "rd_loss": point.rd_loss}
        without = self._means.without(METRICS)
        return {
            "images": len(self.results),
            "without_ms_ssim": without["ms_ssim"],
            "without": without,
            "lmbda": self.objective.lmbda,
            "distortion": self.objective.distortion,
            "means": self.means(),
            "rd_loss_of_means": self.rd_loss_of_means(),
            "published": published,
            "gap_percent": self.gap_percent(),
        }


def write_evaluation(evaluation: Evaluation, folder: Path, origin: Mapping[str, Any]) -> None:
    """Writes ``results.csv`` and ``summary.json``; the latter begins with ``origin``, the entries that identify the checkpoint."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(evaluation.results[0].row)
    for result in evaluation.results:
        writer.writerow(NOT_AVAILABLE if value is None else value for value in result.row.values())
    write_atomically(folder / RESULTS, text.getvalue().encode())
    write_atomically(folder / SUMMARY, json.dumps({**origin, **evaluation.summary()}, indent=2).encode())


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints a row per image, the means, and the published point with the gap to it."""
    rows = [(result.image, _cells(result.row)) for result in evaluation.results]
    means = evaluation.means()
    print_rows("measured from files", [column.heading for column in PRINTED.values()], rows, _cells(means))
    print_other_means(means, {"mean": ""})
    published, gap = evaluation.compared(), evaluation.gap_percent()
    if published is not None and gap is not None:
        print(
            f"published {published.architecture}, lambda {published.lmbda:g}, {published.distortion}, means over Kodak: "
            f"{published.bpp:.4f} bpp, {published.psnr_db:.2f} dB, MS-SSIM {published.ms_ssim:.4f}\n"
            f"R-D loss of the means: {evaluation.rd_loss_of_means():.4f}, published {published.rd_loss:.4f}, gap {gap:+.1f} %"
        )
    elif evaluation.published is not None and published is None:
        print("not compared with the published point of this codec and lambda: it is of Kodak (python -m data.fetch kodak)")


def _cells(values: Mapping[str, Any]) -> list[str]:
    return [column.text(values[name]) for name, column in PRINTED.items()]
