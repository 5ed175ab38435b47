"""What a refinement measured: one JSON file an image, a CSV and a summary made from those files, and the table of the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sga.files import replacing, write_atomically

CONFIG, MARK = "config.yaml", ".fingerprint-"
REPORT_PAGE = "index.html"
IMAGES, BITSTREAMS, BASE_BITSTREAMS = "images", "bitstreams", "bitstreams_base"
RECONSTRUCTIONS, FAILURES = "reconstructions", "failures"
NOT_AVAILABLE = "n/a"
CLASSICAL = "classical"
"""Folder of a study with the measurements of classical codecs."""


@dataclass(frozen=True)
class ImageResult:
    """A row of ``results.csv``; the measured columns are of files. ``bpp_estimated`` is by the densities, ``seconds`` the
    refinement's wall time, ``best_step`` the steps after which the written latents were reached,
    ``lmbda`` the image's own."""

    image: str
    height: int
    width: int
    method: str
    steps: int
    lmbda: float
    distortion: str
    bpp_base: float
    psnr_db_base: float | None
    ms_ssim_base: float | None
    rd_loss_base: float
    bpp: float
    psnr_db: float | None
    ms_ssim: float | None
    rd_loss: float
    bpp_estimated: float
    best_step: int
    seconds: float


COLUMNS = tuple(field.name for field in fields(ImageResult))
TYPES: dict[str, Any] = get_type_hints(ImageResult)
MEASURED = ("bpp", "psnr_db", "ms_ssim", "rd_loss")
MEANS = (*(f"{name}_base" for name in MEASURED), *MEASURED, "bpp_estimated", "seconds")


def is_run(folder: Path) -> bool:
    """Whether a folder looks like that of a run of ``refine.py``, whatever it has finished."""
    return (folder / CONFIG).is_file() and (folder / IMAGES).is_dir()


def is_report(folder: Path) -> bool:
    """Whether a folder looks like that of ``python -m reports``."""
    return (folder / REPORT_PAGE).is_file() and (folder / "figures").is_dir()


def claim(output: Path, fingerprint: str) -> bool:
    """Makes a folder, created where it is missing, that of the job whose settings ``fingerprint`` names, for all its processes.

    Returns False where it is another job's. A name without content cannot be read half written.
    """
    output.mkdir(parents=True, exist_ok=True)
    own = output / f"{MARK}{fingerprint}"
    own.touch()
    if all(mark == own for mark in output.glob(f"{MARK}*")):
        return True
    own.unlink(missing_ok=True)
    return False


def write_result(output: Path, result: ImageResult, identity: Mapping[str, str]) -> None:
    """Writes ``images/NAME.json`` with what identifies the result: from then on the image counts as finished."""
    content = {**asdict(result), **identity}
    write_atomically(output / IMAGES / f"{result.image}.json", json.dumps(content, indent=2).encode())


def read_result(output: Path, name: str) -> tuple[ImageResult, Mapping[str, Any]] | None:
    """Result of an image and its file's whole content; None where there is none, and where the file is damaged."""
    try:
        content = json.loads((output / IMAGES / f"{name}.json").read_bytes())
        row = {column: content[column] for column in COLUMNS}
    except (ValueError, KeyError, TypeError, OSError):
        return None
    sound = row["image"] == name and all(_is_of(TYPES[column], value) for column, value in row.items())
    return (ImageResult(**row), content) if sound else None


def _is_of(kind: Any, value: object) -> bool:
    """Whether a value read from JSON, where 30 and 30.0 are one number, is of the type of a column."""
    return not isinstance(value, bool) and (isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind)))


def names_with_results(output: Path) -> set[str]:
    """Names of the images that have a result file."""
    folder = output / IMAGES
    return {path.name.removesuffix(".json") for path in folder.iterdir() if path.suffix == ".json"} if folder.is_dir() else set()


def read_failures(output: Path, names: Iterable[str]) -> dict[str, str]:
    """Why the last attempt at each of the named images failed; of those that failed."""
    paths = {name: output / FAILURES / f"{name}.txt" for name in names}
    return {name: path.read_text() for name, path in paths.items() if path.is_file()}


def format_psnr(psnr_db: float | None) -> str:
    """For a caption: dB, or that the image is perfect."""
    return "perfect" if psnr_db is None else f"{psnr_db:.2f} dB"


class Means:
    """Means of columns over the images that have them, of any number of images in little memory."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(MEANS, 0.0)
        self._counts = dict.fromkeys(MEANS, 0)

    def add(self, result: ImageResult) -> None:
        for column in MEANS:
            value = getattr(result, column)
            if value is not None:
                self._sums[column] += value
                self._counts[column] += 1

    def compute(self) -> dict[str, float | None]:
        """By column; None where no image has it."""
        return {column: self._sums[column] / count if count else None for column, count in self._counts.items()}


def summarise(output: Path, names: Sequence[str], fingerprint: str) -> dict[str, Any]:
    """Writes ``results.csv`` and ``summary.json`` of the named images from their files, one at a time, and returns the summary.

    Raises:
        ValueError: A result is of other settings than ``fingerprint``.
    """
    means, finished, without_ms_ssim, missing = Means(), 0, 0, []
    with replacing(output / "results.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name in names:
            found = read_result(output, name)
            if found is None:
                missing.append(name)
                continue
            result, content = found
            check_settings(output, name, content, fingerprint)
            row = (getattr(result, column) for column in COLUMNS)
            writer.writerow([NOT_AVAILABLE if value is None else value for value in row])
            means.add(result)
            finished += 1
            without_ms_ssim += result.ms_ssim is None
    summary = {
        "images": len(names),
        "finished": finished,
        "without_ms_ssim": without_ms_ssim,
        "failures": read_failures(output, missing),
        "means": means.compute(),
    }
    write_atomically(output / "summary.json", json.dumps(summary, indent=2).encode())
    return summary


def check_settings(output: Path, name: str, content: Mapping[str, Any], fingerprint: str) -> None:
    """Raises ValueError where the result file of an image is not of the settings that ``fingerprint`` names."""
    if content.get("fingerprint") != fingerprint:
        raise ValueError(f"{output} holds results of other settings ({name}): choose another --output")


def print_table(results: Sequence[ImageResult], means: Mapping[str, float | None]) -> None:
    """bpp, PSNR, MS-SSIM and R-D loss of images before and after, and the means of the job."""
    table = Table(box=SIMPLE, title="base (the encoder's latents) -> refined, measured from files")
    table.add_column("image")
    for name in ("bpp", "PSNR dB", "MS-SSIM", "R-D loss", "change", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(result.image, *_cells({column: getattr(result, column) for column in MEANS}))
    if len(results) != 1 and means["rd_loss"] is not None:
        table.add_section()
        table.add_row("mean", *_cells(means), style="bold")
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def _cells(values: Mapping[str, float | None]) -> list[str]:
    def pair(column: str, form: str) -> str:
        before, after = values[f"{column}_base"], values[column]
        return " -> ".join(NOT_AVAILABLE if value is None else format(value, form) for value in (before, after))

    before, after = values["rd_loss_base"], values["rd_loss"]
    assert before is not None and after is not None
    return [
        pair("bpp", ".4f"),
        pair("psnr_db", ".2f"),
        pair("ms_ssim", ".4f"),
        pair("rd_loss", ".4f"),
        f"{100 * (after / before - 1):+.1f} %",
        f"{values['seconds']:.1f}",
    ]
