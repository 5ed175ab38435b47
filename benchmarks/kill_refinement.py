"""Kills a refinement of many images at many moments, runs it again each time, and compares what it leaves.

``python -m benchmarks.kill_refinement --images 30 --kills 50``

The moments are spread over all file operations of the job: before a file is opened, synchronised with the disk, renamed or removed.
Each time the results have to be, byte for byte, those of a job that nothing stopped, every image once, without a temporary file.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import refine
from benchmarks.killing import contents, count_operations, dies_at, in_a_process
from data.samples import sample_paths
from sga.cli import fail
from sga.files import TEMPORARY
from sga.images import read_image, write_image

SIDE = 64
"""Of the images, in pixels."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2, help="Steps of each image.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return kill_everywhere(Path(folder), options.images, options.kills, options.steps)


def kill_everywhere(folder: Path, images: int, kills: int, steps: int) -> int:
    """Exit code: 0 where each killed job, run again, left what an uninterrupted one does."""
    write_images(folder / "images", images)

    output = folder / "run"  # the same for all: config.yaml holds it

    def job() -> None:
        settings = ["--config=fast", f"--model.steps={steps}", "--trainer.accelerator=cpu"]
        if refine.main([*settings, "--data.root", str(folder / "images"), "--output", str(output)]):
            raise RuntimeError("images are not finished")

    def counted() -> None:
        operations: list[int] = []
        count_operations(output, operations.append)
        job()
        (folder / "operations").write_text(str(len(operations)))

    if in_a_process(counted):
        fail("the uninterrupted job failed", 1)
    expected, operations = contents(output), int((folder / "operations").read_text())
    print(f"{images} images, {steps} steps each: {operations} file operations; {kills} kills", flush=True)
    wrong = left = 0
    for kill in range(kills):
        shutil.rmtree(output, ignore_errors=True)
        number = kill * operations // kills

        def killed(number: int = number) -> None:
            dies_at(number, output)
            job()

        status = in_a_process(killed)
        swept = len(list(output.rglob(f"{TEMPORARY}*")))
        again = in_a_process(job)
        sound = status == -signal.SIGKILL and again == 0 and contents(output) == expected
        left, wrong = left + (swept > 0), wrong + (not sound)
        if not sound:
            print(f"killed before operation {number}: the results differ ({status}, {again})", flush=True)
    print(f"{kills - wrong} of {kills} equal the uninterrupted job; {left} kills left a temporary file, which the rerun removed")
    return min(wrong, 1)


def write_images(folder: Path, number: int) -> None:
    """Different crops of the embedded photographs."""
    folder.mkdir()
    photographs = [read_image(path) for path in sample_paths()]
    for i in range(number):
        pixels, shift = photographs[i % len(photographs)], 7 * i
        write_image(pixels[:, shift : shift + SIDE, shift : shift + SIDE], folder / f"{i:03}.png")


if __name__ == "__main__":
    sys.exit(main())
