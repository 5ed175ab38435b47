"""Whose a folder is: a command writes into a new folder, or into one of its own."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from data.folders import CHECKSUMS, EXTENSIONS
from lightning_modules.training_run import BEST, LAST
from sga.runs.folder import CONFIG, MARK, is_report, is_run


class Owner(StrEnum):
    """What a folder holds, in words."""

    REFINEMENT = "a run of refine.py"
    TRAINING = "a training"
    REPORT = "a report"
    DATA = "a set of images"
    SOMEBODY = f"another program's {CONFIG}"


def owner_of(folder: Path) -> Owner | None:
    """What a folder holds; ``None`` where it does not exist, is empty or has files of no kind that matters.

    Raises:
        OSError: The folder may not be read.
    """
    if is_run(folder) or any(folder.glob(f"{MARK}*")):
        return Owner.REFINEMENT
    if any((folder / name).exists() for name in (LAST, f"{LAST}.old", BEST)):
        return Owner.TRAINING
    if (folder / CONFIG).is_file():
        keys = set(re.findall(r"^(\w+):", (folder / CONFIG).read_text(errors="replace"), re.MULTILINE))
        return Owner.TRAINING if {"model", "data", "trainer"} <= keys else Owner.SOMEBODY
    if is_report(folder):
        return Owner.REPORT
    files = folder.iterdir() if folder.is_dir() else ()
    is_data = any(path.suffix.lower() in {*EXTENSIONS, ".tar"} or path.name == CHECKSUMS for path in files)
    return Owner.DATA if is_data else None


def refuse_foreign(output: Path, own: Owner) -> None:
    """Refuses a folder that is not a command's to write into.

    Raises:
        ValueError: It is a file, or holds what is not ``own``.
        OSError: It may not be read.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: is a file, not a folder")
    owner = owner_of(output)
    if owner not in {own, None}:
        raise ValueError(f"--output {output}: holds {owner}; choose another folder")
