"""Figures of rate against quality: base, methods, classical codecs, and published curves of the architecture.

Published numbers are means over the 24 Kodak images. They are drawn only where all images of the study are Kodak images; where the
study has fewer than 24, the legend says that the published curve is of 24.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from reports.bd_rate import bd_rate
from reports.figures import COLUMN, line, new_figure, save, style
from reports.points import RateCurve, in_db, model, plotted, shared, study_curves
from reports.runs import Study
from reports.section import Drawing, Options, Section
from sga.published import POINTS, of_kodak, published_points, whole_kodak
from sga.quality import METRICS, Floats

# bpp and PSNR in dB over Kodak, from the authors of bmshj2018-hyperprior (arXiv 1802.01436), trained for MSE.
BALLE = (
    *((0.1152, 27.106), (0.1857, 28.679), (0.3018, 30.617), (0.4690, 32.555)),
    *((0.6864, 34.581), (0.9669, 36.720), (1.3074, 38.808), (1.7275, 40.795)),
)

PUBLISHED = tuple(name for name in METRICS if all(getattr(point.means, name) is not None for point in POINTS))
"""Metrics that the published points have."""
PUBLISHED_MARKERS = ("x", "^", "s", "d", "v", "<")
MUTED = ("#777777", "#999999")
CLASSICAL_COLOURS = {"JPEG": "#E69F00", "WebP": "#56B4E9", "AVIF": "#009E73", "HEVC": "#CC79A7", "JPEG XL": "#8c564b"}
CLASSICAL_DASHES = {"JPEG": "-", "WebP": (0, (1, 1)), "AVIF": (0, (4, 1)), "HEVC": (0, (4, 1, 1, 1)), "JPEG XL": (0, (2, 1))}


class Line(NamedTuple):
    """A line of a figure: its name, means ``[points]`` in bpp and in dB, and its look as arguments of ``Axes.plot``."""

    name: str
    bpp: Floats
    quality_db: Floats
    look: dict[str, Any]


def published_lines(study: Study, images: Sequence[str], metric: str) -> list[Line]:
    """Lines of CompressAI's points for the families of a study, and of the original authors' own points.

    Empty where the images are not Kodak's, or the metric was not published.
    """
    results = [result for run in study.runs for result in run.results if result.image in images]
    pixels = {result.image: result.height * result.width for result in results}
    if metric not in PUBLISHED or not of_kodak(pixels):
        return []
    over = "" if whole_kodak(pixels) else ", 24 images"
    families = {model(run.checkpoint).family for run in study.runs}
    lines: list[Line] = []
    for architecture, distortion in dict.fromkeys((point.architecture, point.distortion) for point in POINTS):
        family = f"{architecture} for {METRICS['ms_ssim'].title if distortion == 'ms_ssim' else 'MSE'}"
        if family not in families:
            continue
        points = published_points(architecture, distortion)
        bpp, quality = (np.array([getattr(point.means, name) for point in points]) for name in ("bpp", metric))
        look = {
            "color": MUTED[0],
            "linestyle": "-",
            "marker": PUBLISHED_MARKERS[len(lines) % len(PUBLISHED_MARKERS)],
            "markersize": 3,
        }
        lines.append(Line(f"CompressAI, {family}{over}", bpp, in_db(quality, metric), look))
        if family == "bmshj2018-hyperprior for MSE" and metric == "psnr_db":
            bpp, quality = np.array(BALLE).T
            look = {"color": MUTED[1], "linestyle": (0, (3, 2)), "marker": "+", "markersize": 5}
            lines.append(Line(f"Ballé et al. 2018{over}", bpp, quality, look))
    return lines


def better_variants(curves: Sequence[RateCurve], metric: str) -> list[RateCurve]:
    """Curves with one chroma format per classical codec: the one that needs fewer bits, by BD-rate."""
    chosen: dict[str, RateCurve] = {}
    for curve in curves:
        codec = classical_codec(curve)
        other = chosen.get(codec)
        if other is None:
            chosen[codec] = curve
            continue
        images = shared([other, curve], metric)
        try:
            if images and bd_rate(*other.means(images, metric), *curve.means(images, metric)) < 0:
                chosen[codec] = curve
        except ValueError:
            continue
    return list(chosen.values())


def classical_codec(curve: RateCurve) -> str:
    """The codec's name without the chroma format."""
    return curve.name.split(" 4:")[0]


def lines_of(study: Study, metric: str) -> tuple[list[Line], list[str], list[str]]:
    """Lines of a figure, the images of their means, and the reasons for what is left out.

    Raises:
        ValueError: No image has the metric at all points of all runs.
    """
    curves = study_curves(study)
    own = [curve for curve in curves if curve.kind != "classical"]
    images = shared(own, metric)
    if not images:
        raise ValueError(f"no image of which all runs have {METRICS[metric].title}")
    lines, left_out = [], []
    for number, curve in enumerate(own):
        lines.append(Line(curve.name, *curve.means(images, metric), line(number)))
    classical = [curve for curve in curves if curve.kind == "classical"]
    whole = [curve for curve in classical if set(images) <= curve.images(metric)]
    if len(whole) < len(classical):
        names = ", ".join(curve.name for curve in classical if curve not in whole)
        left_out.append(f"{names}: not measured on all {len(images)} images: python -m reports.classical")
    for curve in better_variants(whole, metric):
        codec = classical_codec(curve)
        look = {"color": CLASSICAL_COLOURS[codec], "linestyle": CLASSICAL_DASHES[codec], "linewidth": 0.9}
        lines.append(Line(curve.name, *curve.means(images, metric), look))
    published = published_lines(study, images, metric)
    if metric in PUBLISHED and not published:
        left_out.append("published points: they are of the Kodak images, and of CompressAI's architectures")
    return [*lines, *published], images, left_out


def draw(study: Study, metric: str, path: Path) -> tuple[Drawing, list[str]]:
    """Drawing of bpp against a metric, whose files it writes (``path``: without a suffix); and the reasons for what is left out.

    Raises:
        ValueError: No image has the metric at all points of all runs.
    """
    name = METRICS[metric].title
    lines, images, left_out = lines_of(study, metric)
    columns = 2 if max(len(drawn.name) for drawn in lines) <= 22 else 1
    with style():
        figure, (axes,) = new_figure(width=COLUMN, height=2.5 + 0.16 * -(-len(lines) // columns))
        # The study's own lines are above the others.
        for order, drawn in reversed(list(enumerate(lines))):
            axes.plot(drawn.bpp, drawn.quality_db, label=drawn.name, zorder=3 + len(lines) - order, **drawn.look)
        axes.set(xlabel="rate / bpp", ylabel=f"{name} / dB")
        _limit(axes, lines)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=columns, columnspacing=1.2)
    rows = [(drawn.name, x, y) for drawn in lines for x, y in zip(drawn.bpp, drawn.quality_db, strict=True)]
    files = save(figure, path, ("curve", "bpp", f"{name} dB"), rows)
    count = f"{len(images)} image{'s' * (len(images) > 1)}"
    decibels = METRICS[metric].decibels
    note = f" ({decibels.formula})" if decibels is not None and decibels.formula else ""
    return Drawing(f"Rate against {name}{note} of files, means over {count}.", files), left_out


def _limit(axes: Axes, lines: Sequence[Line]) -> None:
    """Limits the axes to the rates of the study's own curves; classical and published curves continue beyond them."""
    own = [drawn for drawn in lines if "markerfacecolor" in drawn.look]
    low, high = (pick(pick(drawn.bpp) for drawn in own) for pick in (min, max))
    left, right = max(0.0, 0.6 * low), 1.25 * high
    inside = [drawn.quality_db[(drawn.bpp >= left) & (drawn.bpp <= right)] for drawn in lines]
    quality = np.concatenate(inside)
    margin = 0.04 * float(np.ptp(quality)) + 0.1
    axes.set(xlim=(left, right), ylim=(quality.min() - margin, quality.max() + margin))


def section(study: Study, options: Options) -> Section:
    """The section with a figure per metric that was measured.

    Raises:
        ValueError: No figure can be drawn.
    """
    drawings, left_out = [], dict[str, None]()
    for metric in plotted(study_curves(study)):
        try:
            drawing, reasons = draw(study, metric, options.output / f"figures/rd_{metric}")
        except ValueError as error:
            left_out[str(error)] = None
            continue
        drawings.append(drawing)
        left_out |= dict.fromkeys(reasons)
    if not drawings:
        raise ValueError("; ".join(left_out))
    return Section("Rate and quality", drawings=drawings, left_out=list(left_out))
