"""The result of a refined image: a row of ``results.csv``, and the JSON file that marks the image as finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_type_hints

from sga.files import sha256_of, write_atomically
from sga.quality import ALWAYS, BPP_ESTIMATED, LATER, METRICS, RD_LOSS, SECONDS, Column, Quality, is_of
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS, IMAGES

FILES = "files"
"""Key of a result file with the SHA-256 of each of the image's files, by folder."""

BASE = "_base"
"""Suffix of the columns of the unrefined file."""


@dataclass(frozen=True)
class ImageResult:
    """A row of ``results.csv``.

    Attributes:
        image: Name of the image in the job.
        height: Height in pixels.
        width: Width in pixels.
        method: Name of the method.
        steps: Adam steps of the refinement.
        lmbda: Lambda of the image's own loss.
        distortion: ``mse`` or ``ms_ssim``.
        base: Metrics of the unrefined file; their columns end in ``_base``.
        rd_loss_base: R-D loss of the unrefined file.
        refined: Metrics of the refined file.
        rd_loss: R-D loss of the refined file.
        bpp_estimated: Bits per pixel of the refined latents by the densities.
        best_step: Steps after which the written latents were reached.
        seconds: Wall time of the refinement in seconds.
    """

    image: str
    height: int
    width: int
    method: str
    steps: int
    lmbda: float
    distortion: str
    base: Quality
    rd_loss_base: float
    refined: Quality
    rd_loss: float
    bpp_estimated: float
    best_step: int
    seconds: float

    @cached_property
    def row(self) -> dict[str, Any]:
        """The values by :data:`COLUMNS`."""
        own = {name: getattr(self, name) for name in _TYPES}
        values = {**own, **self.base.columns(BASE), **self.refined.columns()}
        return {column: values[column] for column in COLUMNS}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The result of a row; metrics that are newer than the row may be missing from it.

        Raises:
            KeyError: A column is missing that every version writes.
            TypeError: A value is not of its column's type.
        """
        own = {name: row[name] for name in _TYPES}
        for name, value in own.items():
            if not is_of(_TYPES[name], value):
                raise TypeError(f"{name} is {value!r}")
        return cls(**own, base=Quality.from_columns(row, BASE), refined=Quality.from_columns(row))


_TYPES: dict[str, Any] = {name: kind for name, kind in get_type_hints(ImageResult).items() if kind is not Quality}

MEASURED: dict[str, Column] = {
    **{f"{name}{BASE}": METRICS[name] for name in ALWAYS},
    f"rd_loss{BASE}": RD_LOSS,
    **{name: METRICS[name] for name in ALWAYS},
    "rd_loss": RD_LOSS,
    "bpp_estimated": BPP_ESTIMATED,
    "seconds": SECONDS,
    **{f"{name}{BASE}": METRICS[name] for name in LATER},
    **{name: METRICS[name] for name in LATER},
}
"""Columns that have a mean."""


def _columns() -> tuple[str, ...]:
    """Names of the columns: first those of every version, in their old order, then newer metrics."""
    pairs = {"base": BASE, "refined": ""}
    own = ([f"{name}{pairs[each.name]}" for name in ALWAYS] if each.name in pairs else [each.name] for each in fields(ImageResult))
    first = [column for columns in own for column in columns]
    return (*first, *(column for column in MEASURED if column not in first))


COLUMNS = _columns()
"""Columns of ``results.csv``, and keys of the JSON file of an image."""


def write_result(output: Path, result: ImageResult, identity: Mapping[str, Any]) -> None:
    """Writes ``images/NAME.json``, from which the image counts as finished.

    Args:
        output: Folder of the run.
        result: Result of the image.
        identity: Entries that identify the result, such as the fingerprint of the settings, and :data:`FILES`.
    """
    content = {**result.row, **identity}
    write_atomically(output / IMAGES / f"{result.image}.json", json.dumps(content, indent=2).encode())


def read_result(output: Path, name: str) -> tuple[ImageResult, Mapping[str, Any]] | None:
    """Result of an image, and the whole content of its file; ``None`` where the file is missing or damaged.

    A file that lacks a newer metric is not damaged.
    """
    try:
        content = json.loads((output / IMAGES / f"{name}.json").read_bytes())
        result = ImageResult.from_row(content)
    except (ValueError, KeyError, TypeError, OSError):
        return None
    return (result, content) if result.image == name else None


def read_finished(output: Path, name: str) -> tuple[ImageResult, Mapping[str, Any]] | None:
    """What :func:`read_result` returns, of an image whose files are there and whole; ``None`` for any other.

    Results of earlier versions, which do not tell what their files hold, need them to be there alone.
    """
    found = read_result(output, name)
    return found if found is not None and is_whole(output, name, found[1]) else None


def is_whole(output: Path, name: str, content: Mapping[str, Any]) -> bool:
    """Whether the files of an image are there and hold what ``content``, that of its result file, says."""
    known = content.get(FILES, {})
    try:
        hashes = {folder: sha256_of(path) for folder, path in _files(output, name).items()}
    except OSError:
        return False
    return all(known.get(folder, found) == found for folder, found in hashes.items())


def _files(output: Path, name: str) -> dict[str, Path]:
    """Files that a finished image needs, by folder."""
    return {folder: output / folder / f"{name}.bin" for folder in (BITSTREAMS, BASE_BITSTREAMS)}


def check_settings(output: Path, name: str, content: Mapping[str, Any], fingerprint: str) -> None:
    """Raises ValueError where the result file of an image is not of the settings that ``fingerprint`` names."""
    if content.get("fingerprint") != fingerprint:
        raise ValueError(f"{output} holds results of other settings ({name}): choose another --output")
