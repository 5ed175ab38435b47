"""Refines a set of images in many ways: ``python study.py --config methods --data.root DIR --output STUDY``.

``--config`` is a name of ``configs/studies`` or the path of a file. It lists runs of ``refine.py`` by name; each writes into
``STUDY/NAME`` as that command does::

    common: {model.steps: 500}          # options of every run
    runs:
      sga: {config: sga}                # a file of configs/refine, or the path of one
      linear_0.4: {config: linear, model.temperature.init_args.tau_max: 0.4}

Other options of ``refine.py`` on the command line apply to every run and override the file: ``--data.limit 2 --model.steps 20``
tries a study out. Before the first run starts, the options of all runs are checked and their models are built; ``--dry-run`` stops
after that and prints the commands.

Running it again refines the unfinished images. A run that fails is named at the end, and the others continue. Several processes
share the images with ``--data.shard I/N`` (``srun`` does so by itself); each process uses one device.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from lightning_fabric.utilities.exceptions import MisconfigurationException

import lightning_modules.quiet  # noqa: F401  (before the project's other modules)
import refine
from lightning_modules.command_line import config_file
from lightning_modules.study_plan import STUDIES, PlannedRun, read_plan
from sga.cli import INTERRUPTED, TERMINATED, errors_in_one_line


def run(planned: PlannedRun) -> bool:
    """Whether a run is finished, after refining its unfinished images; ``False`` where an image failed or the run could not start.

    Raises:
        SystemExit: A signal stopped it.
    """
    try:
        return refine.main(list(planned.options)) == 0
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            raise
        return not stop.code
    except Exception:  # a run that fails must not end a study of days
        traceback.print_exc()
        return False


def main(args: list[str] | None = None, prog: str = "study.py") -> int:
    """Runs the command; ``args`` are by default those of the process, ``prog`` is what the help calls it."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help=f"the study: {', '.join(sorted(file.stem for file in STUDIES.glob('*.yaml')))}, or a file",
    )
    parser.add_argument("--data.root", dest="root", default="samples", metavar="DIR", help="images, as for refine.py")
    parser.add_argument("--output", type=Path, required=True, metavar="STUDY", help="folder of the runs")
    parser.add_argument("--dry-run", action="store_true", help="check all options, print the commands and stop")
    options, more = parser.parse_known_args(args)
    refine_command, report_command = (
        ("sga refine", "sga report") if prog == "sga study" else ("python refine.py", "python -m reports")
    )
    with errors_in_one_line(MisconfigurationException):
        output: Path = options.output
        plan = read_plan(config_file(options.config, STUDIES), output, options.root, more)
        for number, planned in enumerate(plan, 1):
            print(f"[{number}/{len(plan)}] {refine_command} {planned.arguments}")
        work = sum(planned.steps * planned.images for planned in plan)
        print(f"{len(plan)} runs, {sum(planned.steps for planned in plan)} steps per image, {work} image-steps")
        return 0 if options.dry_run else _run_all(plan, output, report_command)


def _run_all(plan: Sequence[PlannedRun], output: Path, report_command: str) -> int:
    failed = []
    for number, planned in enumerate(plan, 1):
        print(f"\n[{number}/{len(plan)}] {planned.name}: {planned.images} images, {planned.steps} steps", flush=True)
        if not run(planned):
            failed.append(planned.name)
    print(
        f"\n{len(plan) - len(failed)} of {len(plan)} runs are finished in {output}; a table of them: tensorboard --logdir {output}"
    )
    print(f"report: {report_command} {output} -o {output / 'report'}")
    for name in failed:
        print(f"failed: {name} (see above)", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
