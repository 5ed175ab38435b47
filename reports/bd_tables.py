"""Tables of the BD-rates of a study, as :mod:`reports.bd_rate` has them: ``python -m reports.bd_tables STUDY``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import published_rates
from reports.bd_rate import Bd, pairs
from reports.bootstrap import LEVEL, Interval
from reports.points import plotted, study_curves
from reports.runs import Study, read_study
from reports.section import Options, Section, Table
from sga.cli import errors_in_one_line
from sga.quality import METRICS, NOT_AVAILABLE


def table(found: Sequence[Bd], metric: str) -> Table:
    """A table with a row per pair of curves."""
    name = METRICS[metric].title
    columns = ("curve", "against", "BD-rate", f"BD-{name}", "mean of BD-rates of images", "images", "overlap")
    rows = [
        (
            bd.test,
            bd.anchor,
            f"{bd.rate:+.1f} %{_in_brackets(bd.rate_interval, '+.1f')}",
            NOT_AVAILABLE if bd.quality_db is None else f"{bd.quality_db:+.2f} dB{_in_brackets(bd.quality_interval, '+.2f')}",
            NOT_AVAILABLE if bd.rate_of_images is None else f"{bd.rate_of_images:+.1f} % (of {bd.images_with_rate})",
            str(len(bd.images)),
            f"{bd.overlap_db[0]:.1f} to {bd.overlap_db[1]:.1f} dB, {100 * bd.overlap:.0f} %",
        )
        for bd in found
    ]
    data_columns = (
        *("curve", "against", "BD-rate %", "low %", "high %", f"BD-{name} dB", "low dB", "high dB"),
        *("mean of BD-rates of images %", "images with a BD-rate", "images", "overlap from dB", "overlap to dB", "overlap"),
    )
    data = [
        (
            *(
                bd.test,
                bd.anchor,
                bd.rate,
                *(bd.rate_interval or (None, None)),
                bd.quality_db,
                *(bd.quality_interval or (None, None)),
            ),
            *(bd.rate_of_images, bd.images_with_rate, len(bd.images), *bd.overlap_db, bd.overlap),
        )
        for bd in found
    ]
    note = (
        f"Differences of mean curves over the images, by PCHIP, with {LEVEL} % bootstrap intervals over images. Overlap: the range "
        "of quality that both curves reach, and its share of the range of both. Negative BD-rates and positive dB are gains."
    )
    return Table(f"Bjontegaard differences, {name}", columns, rows, data_columns, data, note)


def tables(study: Study) -> tuple[dict[str, Table], list[str]]:
    """A table per distortion, by its name, where two curves of the study have a BD-rate; and the reasons for what is left out."""
    curves, made, left_out = study_curves(study), dict[str, Table](), dict[str, None]()
    for metric in plotted(curves):
        found, reasons = pairs(curves, metric)
        left_out |= dict.fromkeys(reasons)
        if found:
            made[metric] = table(found, metric)
    return made, list(left_out)


def section(study: Study, options: Options) -> Section:
    """The section of a report with the tables of :func:`tables`, and on Kodak with :func:`reports.published_rates.table`.

    Raises:
        ValueError: No two curves of the study have a BD-rate.
    """
    made, left_out = tables(study)
    for metric, each in made.items():
        each.save(options.output / f"tables/bd_{metric}")
    if not made:
        raise ValueError("; ".join(left_out) or "a BD-rate needs two curves, of several checkpoints or lambdas each")
    tables_of_page = list(made.values())
    try:
        published = published_rates.table(study)
        published.save(options.output / "tables/bd_published")
        tables_of_page.append(published)
    except ValueError as error:
        left_out.append(str(error))
    return Section("BD-rates", tables=tables_of_page, left_out=left_out)


def _in_brackets(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; ``args`` are by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of runs of refine.py")
    chosen = parser.parse_args(args)
    with errors_in_one_line():
        made, left_out = tables(read_study(chosen.study))
    for each in made.values():
        print(each.markdown())
    for reason in left_out:
        print(f"left out: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
