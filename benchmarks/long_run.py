"""Memory of a refinement of many images: ``python -m benchmarks.long_run --images 300``.

Prints the resident set after 20 images and after every 100; it has to stay: a long job needs what a short one does. The crops have
many sizes, as the photographs of a folder do.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

import refine
from data.samples import sample_paths
from sga.images import read_image, write_image

FIRST, EVERY = 20, 100
"""Images after which the memory is read: the first, with all that is loaded once, then every so many."""


class Memory(pl.Callback):
    """Prints the resident set of the process."""

    def __init__(self) -> None:
        self.done, self.first = 0, 0.0

    def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
        self.done += 1
        if self.done == FIRST or self.done % EVERY == 0:
            megabytes = resident_megabytes()
            self.first = self.first or megabytes
            print(f"{self.done:5} images: {megabytes:7.1f} MB, {100 * (megabytes / self.first - 1):+.1f} %", flush=True)


def resident_megabytes() -> float:
    """Resident set of this process; Linux alone."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--steps", type=int, default=3, help="Steps of each image.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images, output = Path(folder) / "images", Path(folder) / "run"
        write_images(images, options.images)
        settings = ["--config=fast", f"--model.steps={options.steps}", "--trainer.accelerator=cpu"]
        memory = "--trainer.callbacks+=benchmarks.long_run.Memory"
        return refine.main([*settings, memory, "--data.root", str(images), "--output", str(output)])


def write_images(folder: Path, number: int) -> None:
    """Crops of the embedded photographs, of 35 sizes."""
    folder.mkdir()
    photographs = [read_image(path) for path in sample_paths()]
    for i in range(number):
        pixels, top, left = photographs[i % len(photographs)], i % 97, i % 89
        height, width = 64 + 16 * (i % 5), 64 + 16 * (i % 7)
        write_image(pixels[:, top : top + height, left : left + width], folder / f"{i:04}.png")


if __name__ == "__main__":
    sys.exit(main())
