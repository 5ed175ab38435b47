"""The curves of a study in CompressAI's JSON layout: ``python -m reports.compressai_json STUDY -o DIR``.

There is a file per curve, in the layout that ``compressai.utils.eval_model`` and ``compressai.utils.bench`` print, for

    python -m compressai.utils.plot -f DIR/*.json -m psnr -o rd.png
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence, Set
from itertools import count
from pathlib import Path
from typing import Any

from reports.points import RateCurve, shared, study_curves
from reports.runs import Study, read_study
from sga.cli import errors_in_one_line
from sga.files import write_atomically

KINDS = {"base": "the encoder's latents", "method": "refined latents", "classical": "classical codec"}


def content(curve: RateCurve, images: Sequence[str], with_ms_ssim: bool) -> dict[str, Any]:
    """Content of the JSON file of a curve: means over images, ascending in bpp; PSNR in dB and MS-SSIM in [0, 1]."""
    bpp, psnr = curve.means(images, "psnr_db")
    results = {"bpp": bpp.tolist(), "psnr-rgb": psnr.tolist()}
    if with_ms_ssim:
        results["ms-ssim-rgb"] = curve.values(images, "ms_ssim")[1].mean(1).tolist()
    description = f"{KINDS[curve.kind]}, measured from files, means over {len(images)} images"
    return {"name": curve.name, "description": description, "results": results}


def write(study: Study, output: Path) -> tuple[list[Path], list[str]]:
    """Paths of the files, one per curve and all over the same images, which it writes; and the reasons for curves left out.

    Raises:
        ValueError: The runs share no image that has a PSNR.
    """
    curves, left_out = study_curves(study), []
    images = shared([curve for curve in curves if curve.kind != "classical"], "psnr_db")
    if not images:
        raise ValueError("the runs of the study share no image that has a PSNR")
    output.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for curve in curves:
        if not set(images) <= curve.images("psnr_db"):
            left_out.append(f"{curve.name}: not measured on all {len(images)} images: python -m reports.classical")
            continue
        with_ms_ssim = set(images) <= curve.images("ms_ssim")
        path = output / f"{_free(curve.name, {path.stem.lower() for path in paths})}.json"
        write_atomically(path, json.dumps(content(curve, images, with_ms_ssim), indent=2).encode())
        paths.append(path)
    return paths, left_out


def _free(name: str, taken: Set[str]) -> str:
    """Free file name for a curve: its name in letters, digits, dots and underscores, and a number where that is taken."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_")
    candidates = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
    return next(candidate for candidate in candidates if candidate.lower() not in taken)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; ``args`` are by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of runs of refine.py, or one run")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the JSON files")
    chosen = parser.parse_args(args)
    with errors_in_one_line():
        paths, left_out = write(read_study(chosen.study), chosen.output)
    for reason in left_out:
        print(f"left out: {reason}")
    print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
