"""Which process works on which image of a job, where several share a folder.

Each process keeps one file, whose name tells its machine and process and whose time of change is renewed while it works. An image
is claimed by a symbolic link to that file, ``images/NAME.lock``: to make a link either succeeds or fails, on every file system of a
cluster too, and what it points to is known from the moment that it exists. A process that was killed leaves links that are worth
nothing: its file is gone, is no longer renewed, or names a process of this machine that has ended.

Two processes that take over the same dead claim in the same instant may both refine the image; their files are the same.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from sga.files import is_abandoned, sweep, temporary_path
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS, FAILURES, IMAGES, RECONSTRUCTIONS

LOCK = ".lock"
RENEWED = 30.0
"""Seconds between two renewals of the file of a process."""

SILENT = 10 * RENEWED
"""Seconds without a renewal after which the claims of a process are worth nothing."""


class Claims:
    """Claims of this process on images of a job.

    Args:
        output: Folder of the job; it exists.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._process = temporary_path(output)
        self._process.touch(exist_ok=False)
        self._ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def take(self, name: str) -> bool:
        """Whether the image is this process's now; not where a living process holds it."""
        link, target = _link(self._output, name), f"../{self._process.name}"
        for _ in range(2):
            try:
                link.symlink_to(target)
            except FileExistsError:
                if holder(self._output, name) is not None:
                    return _read(link) == target  # the answer to a first try may have been lost on its way
                link.unlink(missing_ok=True)
            except OSError:  # no links here, or too long a name: work without claims rather than not at all
                return True
            else:
                return True
        return False

    def release(self, name: str) -> None:
        """Gives an image back, whether it is finished or failed."""
        link = _link(self._output, name)
        if _read(link) == f"../{self._process.name}":
            link.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives all images back."""
        if not self._ended.is_set():
            self._ended.set()
            self._process.unlink(missing_ok=True)
            sweep_job(self._output)

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            with suppress(OSError):
                os.utime(self._process)


def holder(output: Path, name: str) -> str | None:
    """Name of the file of the living process that holds an image of the job in ``output``; ``None`` where there is none."""
    link = _link(output, name)
    target = _read(link)
    if target is None:
        return None
    try:
        process = Path(target).name
        return None if is_abandoned(process, link.stat().st_mtime, _now(output), SILENT) else process
    except OSError:
        return None  # its file is gone


def sweep_job(output: Path) -> None:
    """Removes what killed processes left in the folder of a job: temporary files and claims."""
    for folder in ("", IMAGES, BITSTREAMS, BASE_BITSTREAMS, RECONSTRUCTIONS, FAILURES):
        sweep(output / folder)
    for name in claimed(output):
        if holder(output, name) is None:
            with suppress(OSError):
                _link(output, name).unlink(missing_ok=True)


def claimed(output: Path) -> list[str]:
    """Names of the images with a claim, of a living process or not."""
    folder = output / IMAGES
    links = folder.glob(f"*{LOCK}") if folder.is_dir() else ()
    return sorted(link.name.removesuffix(LOCK) for link in links if link.is_symlink())


def _link(output: Path, name: str) -> Path:
    return output / IMAGES / f"{name}{LOCK}"


def _read(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:
        return None


def _now(output: Path) -> float:
    """Present time by the clock of the file system, which need not be this machine's."""
    probe = temporary_path(output)
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
