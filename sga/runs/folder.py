"""The folder of a run of ``refine.py``: the names of its files, and the job that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CONFIG, MARK = "config.yaml", ".fingerprint-"
RESULTS, SUMMARY = "results.csv", "summary.json"
REPORT_PAGE = "index.html"
IMAGES, BITSTREAMS, BASE_BITSTREAMS = "images", "bitstreams", "bitstreams_base"
RECONSTRUCTIONS, FAILURES = "reconstructions", "failures"
CLASSICAL = "classical"
"""Subfolder of a study with the measurements of classical codecs."""


def is_run(folder: Path) -> bool:
    """Whether a folder looks like the folder of a run of ``refine.py``, finished or not."""
    return (folder / CONFIG).is_file() and (folder / IMAGES).is_dir()


def is_report(folder: Path) -> bool:
    """Whether a folder looks like a report of ``python -m reports``."""
    return (folder / REPORT_PAGE).is_file() and (folder / "figures").is_dir()


def claim(output: Path, fingerprint: str) -> bool:
    """Marks a folder as that of a job, for all its processes; creates it where it is missing.

    The mark is an empty file whose name ends with the fingerprint: a name, unlike content, cannot be read half written.

    Args:
        output: Folder of the job.
        fingerprint: Hash of the job's settings.

    Returns:
        ``False`` where the folder belongs to another job.
    """
    output.mkdir(parents=True, exist_ok=True)
    own = output / f"{MARK}{fingerprint}"
    own.touch()
    if all(mark == own for mark in output.glob(f"{MARK}*")):
        return True
    own.unlink(missing_ok=True)
    return False


def is_claimed(output: Path, fingerprint: str) -> bool:
    """Whether a folder has the mark of the job with this fingerprint."""
    return (output / f"{MARK}{fingerprint}").exists()


def names_with_results(output: Path) -> set[str]:
    """Names of the images that have a result file."""
    folder = output / IMAGES
    return {path.name.removesuffix(".json") for path in folder.iterdir() if path.suffix == ".json"} if folder.is_dir() else set()


def read_failures(output: Path, names: Iterable[str]) -> dict[str, str]:
    """Reason why the last attempt at an image failed, by name, for those of the named images that failed."""
    paths = {name: output / FAILURES / f"{name}.txt" for name in names}
    return {name: path.read_text() for name, path in paths.items() if path.is_file()}
