"""A report on a finished run, or on a folder of runs: ``python -m reports STUDY -o OUT``.

Writes ``OUT/index.html``, one page with everything, ``OUT/figures/`` (PNG, SVG, CSV) and ``OUT/tables/`` (Markdown, HTML, CSV).
Nothing is refined again. Parts that the runs do not allow are left out, with a line that says why.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.page import write_report
from reports.runs import read_study
from reports.section import Options
from sga.cli import errors_in_one_line
from sga.files import local_path


def main(arguments: list[str] | None = None, prog: str = "python -m reports") -> int:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a run of refine.py, or one that holds several")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the report")
    parser.add_argument("--reference", metavar="RUN", help="run that tables compare with; by default the unrefined latents")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="runs in pictures; by default SGA's best and another")
    parser.add_argument("--image", help="image that is drawn; by default the one that gained most")
    parser.add_argument("--at", type=pixel, metavar="X,Y", help="left and top of the crops; by default where the runs differ most")
    parser.add_argument("--size", type=positive, default=160, help="side of the crops in pixels (default: 160)")
    parser.add_argument("--originals", type=Path, metavar="DIR", help="folder of the photographs, if they have moved")
    args = parser.parse_args(arguments)
    with errors_in_one_line():
        study = read_study(local_path(args.study))
        options = Options(local_path(args.output), args.reference, args.runs, args.image, args.at, args.size, args.originals)
        page, left_out = write_report(study, options)
    for reason in left_out:
        print(f"left out: {' '.join(reason.split())}")
    print(f"report: {page}")
    return 0


def pixel(text: str) -> tuple[int, int]:
    left, _, top = text.partition(",")
    if not (left.isdecimal() and top.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is no place: give X,Y in pixels, such as 120,64")
    return int(left), int(top)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 8:
        raise argparse.ArgumentTypeError(f"{text} is no size: give at least 8 pixels")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
