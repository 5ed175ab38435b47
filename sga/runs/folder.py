"""The folder of a run of ``refine.py``: what its files are called, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CONFIG, MARK = "config.yaml", ".fingerprint-"
RESULTS, SUMMARY = "results.csv", "summary.json"
REPORT_PAGE = "index.html"
IMAGES, BITSTREAMS, BASE_BITSTREAMS = "images", "bitstreams", "bitstreams_base"
RECONSTRUCTIONS, FAILURES = "reconstructions", "failures"
CLASSICAL = "classical"
"""Folder of a study with the measurements of classical codecs."""


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


def is_claimed(output: Path, fingerprint: str) -> bool:
    """Whether a folder is that of the job whose settings ``fingerprint`` names."""
    return (output / f"{MARK}{fingerprint}").exists()


def names_with_results(output: Path) -> set[str]:
    """Names of the images that have a result file."""
    folder = output / IMAGES
    return {path.name.removesuffix(".json") for path in folder.iterdir() if path.suffix == ".json"} if folder.is_dir() else set()


def read_failures(output: Path, names: Iterable[str]) -> dict[str, str]:
    """Why the last attempt at each of the named images failed; of those that failed."""
    paths = {name: output / FAILURES / f"{name}.txt" for name in names}
    return {name: path.read_text() for name, path in paths.items() if path.is_file()}
