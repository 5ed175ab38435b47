"""What a refinement measured: one JSON file an image, a CSV and a summary made from those files, and the table of the end."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

IMAGES, BITSTREAMS, BASE_BITSTREAMS = "images", "bitstreams", "bitstreams_base"
RECONSTRUCTIONS, FAILURES = "reconstructions", "failures"
NOT_AVAILABLE = "n/a"


@dataclass(frozen=True)
class ImageResult:
    """A row of ``results.csv``; the measured columns are of files. ``bpp_estimated`` is by the densities, ``seconds`` the
    refinement's wall time, ``best_step`` the steps after which the written latents were reached."""

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


MEASURED = ("bpp", "psnr_db", "ms_ssim", "rd_loss")
MEANS = (*(f"{name}_base" for name in MEASURED), *MEASURED, "bpp_estimated", "seconds")


def write_atomically(path: Path, content: bytes) -> None:
    """The file is whole or not there, whatever stops the program."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_result(output: Path, result: ImageResult, identity: Mapping[str, str]) -> None:
    """Writes ``images/NAME.json`` with what identifies the result: from then on the image counts as finished."""
    content = {**asdict(result), **identity}
    write_atomically(output / IMAGES / f"{result.image}.json", json.dumps(content, indent=2).encode())


def read_results(output: Path) -> dict[str, tuple[ImageResult, Mapping[str, Any]]]:
    """Finished images of a run by name, each with its file's whole content; a damaged file counts as not finished."""
    names = [field.name for field in fields(ImageResult)]
    results: dict[str, tuple[ImageResult, Mapping[str, Any]]] = {}
    for path in sorted((output / IMAGES).glob("*.json")):
        try:
            content: Mapping[str, Any] = json.loads(path.read_text())
            result = ImageResult(**{name: content[name] for name in names})
            results[result.image] = result, content
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return results


def format_psnr(psnr_db: float | None) -> str:
    """For a caption: dB, or that the image is perfect."""
    return "perfect" if psnr_db is None else f"{psnr_db:.2f} dB"


def mean(results: Iterable[ImageResult], column: str) -> float | None:
    """Mean of a column over the images that have it."""
    values = [value for result in results if (value := getattr(result, column)) is not None]
    return sum(values) / len(values) if values else None


def summarise(output: Path, names: Sequence[str], by_name: Mapping[str, ImageResult]) -> dict[str, Any]:
    """Writes ``results.csv`` and ``summary.json`` of the named images from their results, and returns the summary."""
    results = [by_name[name] for name in names if name in by_name]
    paths = {name: output / FAILURES / f"{name}.txt" for name in names if name not in by_name}
    failures = {name: path.read_text() for name, path in paths.items() if path.is_file()}
    columns = [field.name for field in fields(ImageResult)]
    temporary = output / ".results.csv"
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for result in results:
            row = (getattr(result, column) for column in columns)
            writer.writerow([NOT_AVAILABLE if value is None else value for value in row])
    temporary.replace(output / "results.csv")
    summary = {
        "images": len(names),
        "finished": len(results),
        "without_ms_ssim": sum(result.ms_ssim is None for result in results),
        "failures": failures,
        "means": {column: mean(results, column) for column in MEANS},
    }
    write_atomically(output / "summary.json", json.dumps(summary, indent=2).encode())
    return summary


def print_table(results: Sequence[ImageResult]) -> None:
    """bpp, PSNR, MS-SSIM and R-D loss of every image before and after, and their means."""
    table = Table(box=SIMPLE, title="base (the encoder's latents) -> refined, measured from files")
    table.add_column("image")
    for name in ("bpp", "PSNR dB", "MS-SSIM", "R-D loss", "change", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(result.image, *_cells({column: getattr(result, column) for column in MEANS}))
    if len(results) > 1:
        table.add_section()
        table.add_row("mean", *_cells({column: mean(results, column) for column in MEANS}), style="bold")
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
