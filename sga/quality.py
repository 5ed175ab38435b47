"""Metrics of a file: each metric is declared once, as a field of :class:`Quality`, and everything else is derived from that.

To add a metric, write a function that measures it and a field of :class:`Quality` (``docs/extending.md`` has an example). It is
then in the JSON file of every image, ``results.csv``, ``summary.json``, the printed tables, TensorBoard and the reports. Older
files have no value of it, and ``n/a`` is shown in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, Self, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt
import torch

from sga.complexity import kmacs_per_pixel
from sga.measures import Coding, luma_psnr_db, ms_ssim_in_db, psnr_db
from sga.perceptual import lpips_distance
from sga.rate_distortion import Objective

NOT_AVAILABLE = "n/a"
Floats = npt.NDArray[np.float64]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Column:
    """A column of numbers in tables.

    Attributes:
        title: Name for people.
        unit: Unit; empty where there is none.
        form: Format of a number, for ``format``.
        better: Direction of better values, ``higher`` or ``lower``; ``None`` where there is none.
    """

    title: str
    unit: str = ""
    form: str = ".4f"
    better: Better | None = None

    @property
    def heading(self) -> str:
        """Title and unit: ``PSNR dB``."""
        return f"{self.title} {self.unit}".rstrip()

    def text(self, value: float | None) -> str:
        """Text of a value in tables; ``n/a`` for ``None``."""
        return NOT_AVAILABLE if value is None else format(value, self.form)


RD_LOSS = Column("R-D loss", better="lower")
BPP_ESTIMATED = Column("estimated bpp", better="lower")
SECONDS = Column("seconds", form=".1f", better="lower")


@dataclass(frozen=True)
class Decibels:
    """Conversion of means of a metric to decibels that rise with quality.

    Attributes:
        of: Function from means ``[n]`` to decibels ``[n]``.
        formula: Formula for people; empty where means are in dB already.
    """

    of: Callable[[Floats], Floats]
    formula: str = ""


IN_DB = Decibels(lambda means: means)
MS_SSIM_IN_DB = Decibels(lambda means: -10.0 * np.log10(1 - means), "-10 log10(1 - MS-SSIM)")
"""Decibels of the mean MS-SSIM, as in CompressAI's plots; the mean of the column ``ms_ssim_db`` is the mean of decibels instead."""


@dataclass(frozen=True, kw_only=True)
class Metric(Column):
    """A column that is measured from a coded image.

    Attributes:
        measure: Function from a coded image to the value; ``None`` or infinite where it does not exist.
        decibels: Conversion for R-D figures and BD-rates; ``None`` where the metric is not drawn there.
    """

    measure: Callable[[Coding], float | None]
    decibels: Decibels | None = None


def metric(
    title: str,
    unit: str = "",
    form: str = ".4f",
    *,
    measure: Callable[[Coding], float | None],
    better: Better,
    decibels: Decibels | None = None,
    always: bool = False,
    compare: bool = True,
) -> Any:
    """A field of :class:`Quality`.

    Args:
        title, unit, form, better: See :class:`Column`.
        measure, decibels: See :class:`Metric`.
        always: Whether every version has written it, so that a file that lacks it is damaged. Never for a new metric.
        compare: Whether two qualities that differ only in this metric are unequal.
    """
    declared = Metric(title=title, unit=unit, form=form, better=better, measure=measure, decibels=decibels)
    default = MISSING if always else None
    return field(default=default, compare=compare, metadata={"metric": declared})


@dataclass(frozen=True)
class Quality:
    """Metrics of one file, or their means over files; ``None`` where a metric does not exist.

    Attributes:
        bpp: Bits of the whole file, header included, per pixel of the true image.
        psnr_db: PSNR of the 8-bit RGB image in dB; ``None`` where it is perfect.
        ms_ssim: MS-SSIM of the 8-bit image, in [0, 1]; ``None`` where a side is under 161 pixels.
        ms_ssim_db: -10 log10(1 - MS-SSIM); ``None`` also where the image is perfect.
        psnr_y_db: PSNR of the BT.601 luma in dB; ``None`` where it is perfect.
        encode_seconds: Wall time in seconds from latents to the file.
        decode_seconds: Wall time in seconds from the file to the 8-bit image: entropy decoding and synthesis.
        kmacs_per_pixel: Thousands of multiply-accumulates per pixel of the padded image in the decoder's transforms.
        lpips: LPIPS (AlexNet, version 0.1), 0 for equal images; ``None`` where it is not installed (``pip install
            sga-lightning[metrics]``).
        mse: Mean squared error for pixel values in [0, 1], not a column; ``None`` where only its PSNR is known.
    """

    bpp: float = metric("bpp", measure=lambda coding: coding.bpp, better="lower", always=True)
    psnr_db: float | None = metric(
        "PSNR",
        "dB",
        ".2f",
        measure=lambda coding: psnr_db(coding.original, coding.image),
        better="higher",
        decibels=IN_DB,
        always=True,
    )
    ms_ssim: float | None = metric(
        "MS-SSIM",
        measure=lambda coding: coding.ms_ssim,
        better="higher",
        decibels=MS_SSIM_IN_DB,
        always=True,
    )
    ms_ssim_db: float | None = metric("MS-SSIM", "dB", ".2f", measure=lambda coding: ms_ssim_in_db(coding.ms_ssim), better="higher")
    psnr_y_db: float | None = metric(
        "PSNR-Y",
        "dB",
        ".2f",
        measure=lambda coding: luma_psnr_db(coding.original, coding.image),
        better="higher",
        decibels=IN_DB,
    )
    encode_seconds: float | None = metric(
        "encode", "s", ".3f", measure=lambda coding: coding.encode_seconds, better="lower", compare=False
    )
    decode_seconds: float | None = metric(
        "decode", "s", ".3f", measure=lambda coding: coding.decode_seconds, better="lower", compare=False
    )
    kmacs_per_pixel: float | None = metric(
        "decoder",
        "kMAC/pixel",
        ".1f",
        measure=lambda coding: None if coding.codec is None else kmacs_per_pixel(coding.codec),
        better="lower",
    )
    lpips: float | None = metric(
        "LPIPS",
        measure=lambda coding: lpips_distance(coding.original, coding.image),
        better="lower",
        decibels=Decibels(lambda means: -10.0 * np.log10(means), "-10 log10(LPIPS)"),
    )
    mse: float | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, coding: Coding, names: Collection[str] | None = None) -> Self:
        """The metrics of a coded image.

        Args:
            coding: Coded image.
            names: Names of the metrics to measure; by default all.
        """
        values = {name: declared.measure(coding) for name, declared in METRICS.items() if names is None or name in names}
        mse = (coding.original.double() - coding.image.double()).square().mean().item() / 255**2
        return cls.from_values({**{name: finite(value) for name, value in values.items()}, "mse": mse})

    @classmethod
    def from_values(cls, values: Mapping[str, float | None]) -> Self:
        """The metrics with values, such as means, by the names of the fields; a field without a value is ``None``."""
        return cls(**{each.name: values.get(each.name) for each in fields(cls)})  # type: ignore[arg-type]

    @classmethod
    def from_columns(cls, row: Mapping[str, Any], suffix: str = "") -> Self:
        """The metrics in a row of a file of results, whose columns may have a suffix; a newer metric may be missing.

        Raises:
            KeyError: A column that every version writes is missing.
            TypeError: A value is not a number, or is ``None`` where the metric always exists.
        """
        found = {name: row[f"{name}{suffix}"] if name in ALWAYS else row.get(f"{name}{suffix}") for name in METRICS}
        for name, value in found.items():
            if not is_of(_TYPES[name], value):
                raise TypeError(f"{name}{suffix} is {value!r}, not a number")
        return cls.from_values({name: finite(value) for name, value in found.items()})  # old files may hold Infinity

    def columns(self, suffix: str = "") -> dict[str, float | None]:
        """Values of the metrics by the names of their columns."""
        return {f"{name}{suffix}": getattr(self, name) for name in METRICS}

    def loss(self, objective: Objective) -> float | None:
        """R-D loss, in float64; ``None`` where the distortion of the objective is not defined."""
        mse = self.mse
        if mse is None:
            mse = 0.0 if self.psnr_db is None else 10 ** (-self.psnr_db / 10)
        distortion = objective.measure.measured(mse, self.ms_ssim)
        if distortion is None:
            return None
        rate = torch.tensor(self.bpp, dtype=torch.float64)
        return objective.loss(rate, rate.new_tensor(distortion)).item()

    @property
    def psnr_text(self) -> str:
        """PSNR for a caption: in dB, or that the image is perfect."""
        return "perfect" if self.psnr_db is None else f"{self.psnr_db:.2f} dB"


METRICS: dict[str, Metric] = {each.name: each.metadata["metric"] for each in fields(Quality) if "metric" in each.metadata}
"""All metrics by the names of their columns."""
ALWAYS = tuple(each.name for each in fields(Quality) if each.name in METRICS and each.default is MISSING)
"""Metrics that every version has written; their columns come first in files and tables."""
LATER = tuple(name for name in METRICS if name not in ALWAYS)
"""The other metrics, which older files lack."""
PLOTTED = tuple(name for name, declared in METRICS.items() if declared.decibels is not None)
"""Metrics that R-D figures draw and BD-rates compare."""
_TYPES: dict[str, Any] = get_type_hints(Quality)

T = TypeVar("T", bound=float)


def finite(value: T | None) -> T | None:
    """The value, or ``None`` where it is infinite or not a number: then the image has no value."""
    return value if value is not None and math.isfinite(value) else None


def present(values: Iterable[float | None]) -> list[float]:
    """The finite values, over which a mean over images is taken; ``None`` and infinite ones are left out."""
    return [value for value in values if finite(value) is not None]  # type: ignore[misc]


def is_of(kind: Any, value: object) -> bool:
    """Whether a value from a JSON file has the type of a column; an integer counts as a float, as 30 may stand for 30.0."""
    return not isinstance(value, bool) and (isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind)))
