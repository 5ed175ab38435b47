"""A Markdown table of models from finished runs of ``refine.py``: ``python reports/checkpoints.py RUN ... > docs/table.md``.

The table has a row per run: the codec and lambda of its checkpoint, the means of the unrefined files, and the R-D loss of the
published point of that codec and lambda with the gap to it, where the images are the 24 of Kodak. Nothing is measured again; a run
with ``--model.steps 0`` suffices.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml

from reports.runs import read_run
from sga.cli import errors_in_one_line
from sga.codecs.checkpoint import CheckpointError
from sga.loading import load_codec
from sga.published import published_point, whole_kodak
from sga.quality import ALWAYS, LATER, METRICS, RD_LOSS, Column, Quality
from sga.rate_distortion import Objective
from sga.runs.folder import CONFIG, SUMMARY
from sga.runs.results import BASE

MEASURED: dict[str, Column] = {**{name: METRICS[name] for name in ALWAYS}, "rd_loss": RD_LOSS}
FOUND = ("model", "distortion", "lambda", "images", *(column.heading for column in MEASURED.values()))
COLUMNS = (*FOUND, "R-D loss of the means", "published", "gap", *(METRICS[name].heading for name in LATER))


def row(run: Path) -> list[str]:
    """Cells of the table for a run.

    Raises:
        CheckpointError: The run's checkpoint cannot be used.
        OSError: The folder holds no finished run.
    """
    summary = json.loads((run / SUMMARY).read_text())
    config = yaml.safe_load((run / CONFIG).read_text())
    loaded = load_codec(config["model"]["checkpoint"])
    lmbda = config["model"].get("lmbda") or loaded.lmbda
    if lmbda is None:
        raise CheckpointError(f"{run}: the lambda of its checkpoint is not known")
    objective = Objective(lmbda, config["model"].get("distortion") or loaded.distortion)
    means = {name: summary["means"].get(f"{name}{BASE}") for name in (*MEASURED, *LATER)}
    of_means = Quality.from_values(means).loss(objective)
    pixels = {result.image: result.height * result.width for result in read_run(run).results}
    published = published_point(loaded.codec, objective) if whole_kodak(pixels) else None
    found = [
        loaded.codec.published_as or type(loaded.codec).__name__,
        objective.distortion,
        f"{lmbda:g}",
        str(summary["finished"]),
    ]
    numbers = [column.text(means[name]) for name, column in MEASURED.items()]
    newer = [METRICS[name].text(means[name]) for name in LATER]
    if published is None or of_means is None:
        return [*found, *numbers, RD_LOSS.text(of_means), "none", "", *newer]
    gap = f"{100 * (of_means / published.rd_loss - 1):+.1f} %"
    return [*found, *numbers, RD_LOSS.text(of_means), RD_LOSS.text(published.rd_loss), gap, *newer]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run of refine.py")
    args = parser.parse_args()
    with errors_in_one_line():
        rows = [row(run) for run in args.runs]
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
