"""``results.csv`` and ``summary.json`` of a refinement, made from the files of its images."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sga.files import replacing, write_atomically
from sga.quality import METRICS, NOT_AVAILABLE, finite
from sga.runs.folder import RESULTS, SUMMARY, read_failures
from sga.runs.results import COLUMNS, MEASURED, check_settings, read_result


class Means:
    """Means of columns over the images that have a value; only sums are kept, so that any number of images fits.

    Images without a value (``None``, infinite) are left out and counted.

    Args:
        columns: Names of the columns.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._sums = dict.fromkeys(columns, 0.0)
        self._counts = dict.fromkeys(self._sums, 0)
        self._images = 0

    def add(self, row: Mapping[str, float | None]) -> None:
        """Adds the row of an image."""
        self._images += 1
        for column in self._sums:
            value = finite(row[column])
            if value is not None:
                self._sums[column] += value
                self._counts[column] += 1

    def compute(self) -> dict[str, float | None]:
        """Means by column; ``None`` where no image has a value."""
        return {column: self._sums[column] / count if count else None for column, count in self._counts.items()}

    def without(self, columns: Iterable[str]) -> dict[str, int]:
        """Number of images without a value, by column."""
        return {column: self._images - self._counts[column] for column in columns}


def summarise(output: Path, names: Sequence[str], fingerprint: str) -> dict[str, Any]:
    """Content of ``summary.json``, after writing it and ``results.csv`` from the files of the images, one at a time.

    Args:
        output: Folder of the run.
        names: Names of all images of the job.
        fingerprint: Hash of the job's settings.

    Raises:
        ValueError: A result is of other settings than ``fingerprint``.
    """
    means, finished, missing = Means(MEASURED), 0, []
    with replacing(output / RESULTS) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name in names:
            found = read_result(output, name)
            if found is None:
                missing.append(name)
                continue
            result, content = found
            check_settings(output, name, content, fingerprint)
            writer.writerow(NOT_AVAILABLE if value is None else value for value in result.row.values())
            means.add(result.row)
            finished += 1
    without = means.without(METRICS)
    summary = {
        "images": len(names),
        "finished": finished,
        "without_ms_ssim": without["ms_ssim"],
        "without": without,
        "failures": read_failures(output, missing),
        "means": means.compute(),
    }
    write_atomically(output / SUMMARY, json.dumps(summary, indent=2).encode())
    return summary
