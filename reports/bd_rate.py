"""BD-rate and BD-PSNR between the curves of a study, with bootstrap intervals over images.

The main number is the BD of the mean curves, as in published tables: each point is the mean bpp and the mean PSNR (or the mean
MS-SSIM in dB) over the images. Beside it is the mean of the BD-rates of single images. The two differ, since images that need many
bits weigh more in a mean bpp.

BD follows Bjontegaard (VCEG-M33), with the piecewise cubic interpolation (PCHIP) of the package ``bjontegaard`` over the range that
the two curves share; no curve is extrapolated. Intervals are percentiles of the BD of mean curves over samples of the images, drawn
with replacement; both curves of a pair have the same images in each sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from bjontegaard import bd_psnr
from bjontegaard import bd_rate as bjontegaard_rate

from reports.bootstrap import Interval, draws, interval
from reports.points import RateCurve, in_db, shared
from sga.quality import METRICS, Floats

LEAST_POINTS = 4


@dataclass(frozen=True)
class Bd:
    """Bjontegaard differences of a curve against an anchor.

    Attributes:
        anchor: Name of the anchor.
        test: Name of the other curve.
        metric: Name of the metric of quality.
        images: Names of the images of the means.
        rate: BD-rate of the mean curves in per cent; negative where the test needs fewer bits.
        rate_interval: Bootstrap interval of ``rate``; ``None`` for a single image, and where a sample of the images has no BD-rate.
        quality_db: BD-PSNR in dB (or BD of another metric in dB) of the mean curves; ``None`` if they share no range of bpp.
        quality_interval: Bootstrap interval of ``quality_db``; ``None`` as for ``rate_interval``.
        rate_of_images: Mean in per cent of the BD-rates of single images, over those that have one; ``None`` where none has.
        images_with_rate: Number of images that have a BD-rate of their own.
        overlap_db: Range of quality in dB that the curves share, over which the BD-rate is taken.
        overlap: Length of ``overlap_db`` as a share, in [0, 1], of the range of quality of both curves together.
    """

    anchor: str
    test: str
    metric: str
    images: tuple[str, ...]
    rate: float
    rate_interval: Interval | None
    quality_db: float | None
    quality_interval: Interval | None
    rate_of_images: float | None
    images_with_rate: int
    overlap_db: Interval
    overlap: float


def bd_rate(bpp: Floats, quality: Floats, test_bpp: Floats, test_quality: Floats) -> float:
    """BD-rate in per cent of a test curve against an anchor.

    Args:
        bpp, quality: Bits per pixel and quality in dB of the anchor, ``[n]``, ascending in bpp.
        test_bpp, test_quality: Bits per pixel and quality in dB of the test curve, ``[m]``, ascending in bpp.

    Raises:
        ValueError: A curve has fewer than 4 points or falls somewhere, or the curves share no range of quality.
    """
    _check(bpp, quality)
    _check(test_bpp, test_quality)
    low, high = _shared_range(quality, test_quality)
    if low >= high:
        raise ValueError(f"no quality in common: {_range(quality)} dB against {_range(test_quality)} dB")
    return float(bjontegaard_rate(bpp, quality, test_bpp, test_quality, "pchip", require_matching_points=False, min_overlap=0))


def bd_quality(bpp: Floats, quality: Floats, test_bpp: Floats, test_quality: Floats) -> float:
    """BD-PSNR in dB (or BD of another metric in dB) of a test curve against an anchor; arguments as for :func:`bd_rate`.

    Raises:
        ValueError: A curve has fewer than 4 points or falls somewhere, or the curves share no range of bpp.
    """
    _check(bpp, quality)
    _check(test_bpp, test_quality)
    low, high = _shared_range(bpp, test_bpp)
    if low >= high:
        raise ValueError(f"no rate in common: {_range(bpp)} bpp against {_range(test_bpp)} bpp")
    return float(bd_psnr(bpp, quality, test_bpp, test_quality, "pchip", require_matching_points=False, min_overlap=0))


def compare(anchor: RateCurve, test: RateCurve, metric: str, samples: int = 1000, seed: int = 0) -> Bd:
    """Bjontegaard differences of a curve against an anchor, over the images that both have at all their points.

    Args:
        anchor: Curve to compare with.
        test: Curve that is compared.
        metric: Name of the metric of quality.
        samples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The curves share no image, or :func:`bd_rate` refuses their means.
    """
    images = shared([anchor, test], metric)
    if not images:
        raise ValueError(f"{test.name} against {anchor.name}: no image with {METRICS[metric].title} in common")
    measured = (*anchor.values(images, metric), *test.values(images, metric))

    def means(chosen: Sequence[int] | slice) -> tuple[Floats, Floats, Floats, Floats]:
        a, b, c, d = (values[:, chosen].mean(1) for values in measured)
        return a, in_db(b, metric), c, in_db(d, metric)

    whole = means(slice(None))
    try:
        rate = bd_rate(*whole)
    except ValueError as error:
        raise ValueError(f"{test.name} against {anchor.name}: {error}") from None
    resampled = [means(chosen) for chosen in draws(len(images), samples, seed)] if len(images) > 1 else []
    of_images = [value for i in range(len(images)) if (value := _or_none(bd_rate, means([i]))) is not None]
    low, high = _shared_range(whole[1], whole[3])
    everything = max(whole[1].max(), whole[3].max()) - min(whole[1].min(), whole[3].min())
    return Bd(
        anchor=anchor.name,
        test=test.name,
        metric=metric,
        images=tuple(images),
        rate=rate,
        rate_interval=_interval([_or_none(bd_rate, curves) for curves in resampled]),
        quality_db=_or_none(bd_quality, whole),
        quality_interval=_interval([_or_none(bd_quality, curves) for curves in resampled]),
        rate_of_images=float(np.mean(of_images)) if of_images else None,
        images_with_rate=len(of_images),
        overlap_db=(low, high),
        overlap=(high - low) / everything,
    )


def pairs(curves: Sequence[RateCurve], metric: str, samples: int = 1000) -> tuple[list[Bd], list[str]]:
    """Differences of every pair of curves, except two classical codecs; and the reasons for pairs that are left out."""
    found, left_out = [], []
    long = [curve for curve in curves if len(curve.points) >= LEAST_POINTS]
    if short := [f"{curve.name} has {len(curve.points)}" for curve in curves if len(curve.points) < LEAST_POINTS]:
        left_out.append(f"a BD-rate needs {LEAST_POINTS} points, and {', '.join(short)}: refine with more checkpoints or lambdas")
    # Classical codecs come last and are the anchors of the others.
    for first, second in combinations(long, 2):
        if first.kind == "classical":
            continue
        anchor, test = (second, first) if second.kind == "classical" else (first, second)
        try:
            found.append(compare(anchor, test, metric, samples))
        except ValueError as error:
            left_out.append(str(error))
    return found, left_out


def _check(bpp: Floats, quality: Floats) -> None:
    if len(bpp) < LEAST_POINTS:
        raise ValueError(f"a BD-rate needs {LEAST_POINTS} points per curve, here are {len(bpp)}")
    if not (np.isfinite(quality).all() and (np.diff(bpp) > 0).all() and (np.diff(quality) > 0).all()):
        raise ValueError(f"a curve does not rise with the rate all along: bpp {_listed(bpp)}, dB {_listed(quality)}")


def _listed(values: Floats) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _range(values: Floats) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def _shared_range(first: Floats, second: Floats) -> Interval:
    return float(max(first.min(), second.min())), float(min(first.max(), second.max()))


def _or_none(function: Callable[[Floats, Floats, Floats, Floats], float], curves: Sequence[Floats]) -> float | None:
    try:
        return function(*curves)
    except ValueError:
        return None


def _interval(values: Sequence[float | None]) -> Interval | None:
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None
    return interval(defined)
