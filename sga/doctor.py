"""``sga doctor``: what of this machine and installation works, and what to do about the rest."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from sga.checks import cpp_compiler

PACKAGE = "sga-lightning"
FREE_BYTES = 2**30
"""Free space below which a run may end in a full disk."""
SHARED_BYTES = 2**29
"""Shared memory below which workers that load images may hang."""


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        name: What was looked at.
        detail: What was found, or what to do.
        state: ``ok``; ``note`` for what only some use needs; ``mend`` for what must be.
    """

    name: str
    detail: str
    state: str = "ok"


def python() -> Finding:
    """The version of Python, against what the packages have wheels for."""
    found = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Finding("Python", found if fits else f"{found}: install 3.11 or 3.12", "ok" if fits else "mend")


def packages() -> Finding:
    """The versions of the packages that the installation asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires(PACKAGE) or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return Finding("packages", "the project is not installed: make demo, or pip install .", "mend")
    wrong = []
    for package in wanted:
        try:
            found = version(package.name)
        except PackageNotFoundError:
            found = ""
        if not found or not package.specifier.contains(found, prereleases=True):
            wrong.append(f"{package.name} {found or 'is missing'} (wanted: {package.specifier})")
    if wrong:
        return Finding("packages", f"{', '.join(wrong)}: pip install --upgrade {PACKAGE}", "mend")
    return Finding("packages", f"torch {version('torch')}, pytorch-lightning {version('pytorch-lightning')}, {len(wanted)} in all")


def device() -> Finding:
    """What computes, and whether it is quick at bf16."""
    import torch

    if torch.cuda.is_available():
        return Finding("device", f"{torch.cuda.get_device_name()}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}")
    from sga.refinement.settings import step_dtype

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quick = step_dtype("auto", torch.device("cpu")) is torch.bfloat16
    return Finding("device", f"CPU, {cores} cores, {'with' if quick else 'without'} bf16 (no CUDA device)")


def compiler() -> Finding:
    """Whether ``compile: true`` of the longer trainings can work on the CPU."""
    found = cpp_compiler()
    if found is not None:
        return Finding("C++ compiler", found)
    return Finding("C++ compiler", "none: trainings are not compiled; install g++, or set CXX", "note")


def disk() -> Finding:
    """Free space where results are written."""
    free = shutil.disk_usage(".").free
    if free < FREE_BYTES:
        return Finding("disk", f"{free / 1e9:.1f} GB are free here: make room", "mend")
    return Finding("disk", f"{free / 1e9:.0f} GB free here")


def shared_memory() -> Finding:
    """Space for what workers hand over."""
    if not Path("/dev/shm").is_dir():
        return Finding("shared memory", "no /dev/shm on this system", "note")
    size = shutil.disk_usage("/dev/shm").total
    if size < SHARED_BYTES:
        return Finding("shared memory", f"{size / 1e6:.0f} MB: use --data.workers 0, or docker run --shm-size=1g", "note")
    return Finding("shared memory", f"{size / 1e9:.1f} GB")


def round_trip() -> Finding:
    """The embedded model: a picture to a file and back."""
    import torch

    from sga.api import decode, load
    from sga.photograph import encode_photograph

    ramp = torch.arange(96, dtype=torch.uint8)
    image = torch.stack([ramp.expand(64, 96), ramp.flip(0).expand(64, 96), ramp.new_full((64, 96), 128)])
    codec = load()
    coded, _ = encode_photograph(codec, image)
    if not torch.equal(decode(coded.file, codec), coded.image) or not (coded.quality.psnr_db or 0) > 25:
        return Finding("round trip", "a file does not decode to its picture: report it with the lines above", "mend")
    return Finding("round trip", f"{len(coded.file)} bytes, {coded.quality.psnr_text}")


CHECKS: tuple[Callable[[], Finding], ...] = (python, packages, device, compiler, disk, shared_memory, round_trip)


def main(arguments: Sequence[str] | None = None, prog: str = "sga doctor") -> int:
    """Prints a line per check; 1 where something must be mended."""
    argparse.ArgumentParser(prog=prog, description=__doc__).parse_args(arguments)
    mend = False
    for check in CHECKS:
        try:
            finding = check()
        except Exception as error:  # what fails is what is looked for
            finding = Finding(check.__name__.replace("_", " "), f"{type(error).__name__}: {error}", "mend")
        mend = mend or finding.state == "mend"
        print(f"{finding.state:<5} {finding.name}: {finding.detail}")
    return int(mend)


if __name__ == "__main__":
    sys.exit(main())
