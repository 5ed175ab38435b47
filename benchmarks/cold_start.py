"""Start-up time of the commands: ``python benchmarks/cold_start.py --runs 5``.

Every run is a process of its own, after one that does not count (it fills the file system's cache). Other work on the machine
affects the wall time fully, and the CPU time (user and system) little. ``import torch`` and ``import compressai`` are measured for
comparison. For the time of each module: ``python -X importtime -m sga decode FILE -o OUT``.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image
from skimage import data as samples

ROOT = Path(__file__).parents[1]
SIZE = 64
"""Side in pixels of the square picture that is encoded and decoded."""


def commands(folder: Path) -> dict[str, list[str]]:
    """Arguments of Python for each measured command, by name; their file and picture are in ``folder``."""
    encoded, picture = str(folder / "photo.sga"), str(folder / "photo.png")
    return {
        "import sga": ["-c", "import sga"],
        "sga --help": ["-m", "sga", "--help"],
        "sga decode --help": ["-m", "sga", "decode", "--help"],
        "import torch": ["-c", "import torch"],
        "import compressai": ["-W", "ignore", "-c", "import compressai"],
        "sga decode": ["-m", "sga", "decode", encoded, "-o", picture],
        "sga encode --steps 0": ["-m", "sga", "encode", picture, "-o", encoded, "--steps", "0"],
    }


def measured(arguments: list[str]) -> tuple[float, float]:
    """Wall time and CPU time of one process in seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def spread(seconds: list[float]) -> str:
    return f"{median(seconds):6.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="processes of each command (default: 5)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(samples.astronaut()[:SIZE, :SIZE]).save(Path(folder) / "photo.png")
        named = commands(Path(folder))
        measured(named["sga encode --steps 0"])
        print(f"{'':24}{'wall s: median (least to most)':>34}{'CPU s':>28}")
        for name, arguments in named.items():
            measured(arguments)
            wall, cpu = zip(*(measured(arguments) for _ in range(runs)), strict=True)
            print(f"{name:24}{spread(list(wall)):>34}{spread(list(cpu)):>28}", flush=True)


if __name__ == "__main__":
    main()
