"""BD-rates of a study of Kodak against the published hyperprior, beside those of other codecs: ``python -m reports.published_rates
STUDY``.

All of them are of mean curves over the 24 photographs by PCHIP, and each is over the range of PSNR that its curve and the
reference share. CompressAI's own models are in :mod:`sga.published`. The points of the other codecs are rounded to four decimals of
a bit and three of a decibel: those that CompressAI publishes for VTM, HM and AV1 (``results/image/kodak/*.json``), and the means of
those that Cool-chic publishes for its versions (``results/v*/image-kodak.tsv``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from reports.bd_rate import bd_rate
from reports.points import study_curves
from reports.runs import Study, read_study
from reports.section import Table
from sga.cli import errors_in_one_line
from sga.published import KODAK, POINTS, published_points, whole_kodak
from sga.quality import Floats

REFERENCE = "bmshj2018-hyperprior"
METRIC = "psnr_db"

# Mean bpp and PSNR in dB, ascending.
OTHERS: dict[str, tuple[tuple[float, float], ...]] = {
    "VTM": (
        *((0.0482, 26.145), (0.1125, 28.493), (0.2458, 31.200), (0.4905, 34.262)),
        *((0.8748, 37.420), (1.4308, 40.424), (2.3246, 43.506), (3.6326, 46.592)),
    ),
    "HM": (
        *((0.0514, 25.411), (0.1209, 27.746), (0.2667, 30.447), (0.5295, 33.505)),
        *((0.9504, 36.783), (1.5596, 39.995), (2.4761, 43.088), (3.8456, 46.143)),
    ),
    "AV1": (
        *((0.0557, 25.561), (0.1100, 27.562), (0.1700, 29.025), (0.2456, 30.442), (0.3524, 31.987), (0.4987, 33.650)),
        *((0.6828, 35.322), (0.9090, 36.989), (1.1673, 38.555), (1.4148, 39.809), (1.8054, 41.434), (2.6075, 43.968)),
    ),
    "Cool-chic 4.2": ((0.0779, 26.976), (0.2286, 30.717), (0.5085, 34.457), (0.7958, 37.101), (1.4168, 41.000)),
    "Cool-chic 5.0": ((0.0839, 27.435), (0.2186, 30.859), (0.4819, 34.521), (0.7594, 37.247), (1.3571, 41.167)),
}


def published_curves() -> Iterator[tuple[str, Floats, Floats]]:
    """Name, mean bpp and mean PSNR in dB of each published curve for MSE, the reference first."""
    architectures = dict.fromkeys(point.architecture for point in POINTS)
    for architecture in sorted(architectures, key=lambda name: name != REFERENCE):
        points = published_points(architecture, "mse")
        yield architecture, np.array([point.bpp for point in points]), np.array([point.psnr_db for point in points])
    for name, others in OTHERS.items():
        bpp, quality = np.array(others).T
        yield name, bpp, quality


def rates(study: Study) -> tuple[list[tuple[str, str, float, float, float]], list[str]]:
    """Name, source, BD-rate in per cent, and the ends in dB of the range it is over, the best first; and what has none, and why.

    Raises:
        ValueError: The photographs are not Kodak's 24.
    """
    pixels = {result.image: result.height * result.width for run in study.runs for result in run.results}
    if not whole_kodak(pixels):
        raise ValueError(f"published curves are means over Kodak's {len(KODAK)} photographs, and this study is of others")
    (_, anchor_bpp, anchor_db), *published = published_curves()
    curves = [(name, "published", bpp, quality) for name, bpp, quality in published]
    left_out = []
    for curve in study_curves(study):
        images = sorted(curve.images(METRIC))
        if len(images) == len(KODAK):
            curves.append((curve.name, "this study", *curve.means(images, METRIC)))
        else:
            left_out.append(f"{curve.name}: of {len(images)} of {len(KODAK)} photographs at all its points")
    found = []
    for name, source, bpp, quality in curves:
        try:
            rate = bd_rate(anchor_bpp, anchor_db, bpp, quality)
        except ValueError as error:
            left_out.append(f"{name}: {error}")
            continue
        found.append((name, source, rate, max(anchor_db[0], quality[0]), min(anchor_db[-1], quality[-1])))
    return sorted(found, key=lambda row: row[2]), left_out


def table(study: Study) -> Table:
    """The table of :func:`rates`.

    Raises:
        ValueError: The photographs are not Kodak's 24.
    """
    found, left_out = rates(study)
    columns = ("curve", "source", "BD-rate", "over")
    rows = [(name, source, f"{rate:+.1f} %", f"{low:.1f} to {high:.1f} dB") for name, source, rate, low, high in found]
    note = "; ".join(
        (f"Differences of mean curves over Kodak's {len(KODAK)} photographs, by PCHIP; negative ones are gains", *left_out)
    )
    data_columns = ("curve", "source", "BD-rate %", "from dB", "to dB")
    return Table(f"BD-rate against the published {REFERENCE}", columns, rows, data_columns, found, f"{note}.")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; ``args`` are by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of runs of refine.py on Kodak")
    chosen = parser.parse_args(args)
    with errors_in_one_line():
        made = table(read_study(chosen.study))
    print(made.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
