"""Parts of a report: sections with figures and tables."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reports.figures import write_csv
from reports.runs import Run, Study, comparable
from sga.files import write_atomically
from sga.quality import NOT_AVAILABLE


@dataclass(frozen=True)
class Options:
    """Options of a report.

    Attributes:
        output: Folder of the report.
        reference: Name of the run that the others are compared with; by default each run's own base (the encoder's latents).
        runs: Names of the runs that pictures show; by default the best of SGA, where there is one, and the best of another method.
        image: Name of the image that is drawn; by default the one with the largest gain in one of those runs.
        at: Left and top pixel of the crops; by default where the runs differ most.
        size: Side of the crops in pixels.
        originals: Folder of the photographs; by default the one that the runs read.
    """

    output: Path
    reference: str | None = None
    runs: Sequence[str] = ()
    image: str | None = None
    at: tuple[int, int] | None = None
    size: int = 160
    originals: Path | None = None


@dataclass(frozen=True)
class Drawing:
    """A caption and the files of a figure (PNG, SVG, CSV); a page shows the PNG of a ``photograph``, else the SVG."""

    caption: str
    files: Sequence[Path]
    photograph: bool = False


@dataclass(frozen=True)
class Table:
    """A table for people, and the CSV of its numbers.

    Attributes:
        title: Title in one line.
        columns: Names of the columns, with units.
        rows: Cells as printed.
        data_columns: Names of the columns of the CSV.
        data: Rows of the CSV.
        note: Text below the table; empty for none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data_columns: Sequence[str]
    data: Sequence[Sequence[Any]]
    note: str = ""

    def without(self, names: Set[str]) -> Table:
        """The table without columns of these names, in the printed table and in the CSV."""
        kept = [i for i, name in enumerate(self.columns) if name not in names]
        data_kept = [i for i, name in enumerate(self.data_columns) if name not in names]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in kept),
            rows=[[row[i] for i in kept] for row in self.rows],
            data_columns=tuple(self.data_columns[i] for i in data_kept),
            data=[[row[i] for i in data_kept] for row in self.data],
        )

    def markdown(self) -> str:
        """Title, table and note in Markdown."""
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines)
        return f"{self.title}\n\n{table}\n" + (f"\n{self.note}\n" if self.note else "")

    def html(self) -> str:
        """The HTML ``table``, with the title as its caption, and the note."""

        # Numbers are aligned at the right, words at the left.
        words = [any(_is_word(row[i]) for row in self.rows) for i in range(len(self.columns))]

        def cells(tag: str, texts: Sequence[str]) -> str:
            found = zip(texts, words, strict=True)
            return "<tr>" + "".join(f"<{tag}{' class=word' * word}>{html.escape(text)}</{tag}>" for text, word in found) + "</tr>"

        body = "\n".join(cells("td", row) for row in self.rows)
        note = f"\n<p>{html.escape(self.note)}</p>" if self.note else ""
        head = f"<caption>{html.escape(self.title)}</caption>\n<thead>{cells('th', self.columns)}</thead>"
        return f"<table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>{note}"

    def save(self, path: Path) -> list[Path]:
        """Writes the table as Markdown, HTML and CSV (``path``: without a suffix); returns their paths."""
        path.parent.mkdir(parents=True, exist_ok=True)
        markdown, page, table = (path.with_name(f"{path.name}.{suffix}") for suffix in ("md", "html", "csv"))
        write_atomically(markdown, self.markdown().encode())
        write_atomically(page, f'<!DOCTYPE html>\n<meta charset="utf-8">\n{self.html()}\n'.encode())
        write_csv(table, self.data_columns, self.data)
        return [markdown, page, table]


def _is_word(cell: str) -> bool:
    return cell not in ("", NOT_AVAILABLE) and cell[0] not in "+-0123456789"


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Heading of the section.
        drawings: Figures of the section.
        tables: Tables of the section.
        left_out: Reasons for all that it does not show, a line each.
    """

    title: str
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    left_out: Sequence[str] = ()


def section_of_groups(study: Study, title: str, draw: Callable[[str, Sequence[Run]], Drawing]) -> Section:
    """A section with a drawing per group of :func:`reports.runs.comparable`.

    Args:
        study: Study of the runs.
        title: Title of the section.
        draw: Function from the label and the runs of a group to a drawing; raises ValueError or OSError where it cannot draw them.

    Raises:
        ValueError: No group can be drawn.
    """
    drawings, reasons = [], dict[str, list[str]]()
    for label, runs in comparable(study.runs).items():
        try:
            drawings.append(draw(label, runs))
        except (ValueError, OSError) as error:
            reasons.setdefault(str(error), []).append(label)
    left_out = [f"{' and '.join(labels)}: {reason}" for reason, labels in reasons.items()]
    if not drawings:
        raise ValueError("; ".join(left_out))
    return Section(title, drawings=drawings, left_out=left_out)


def file_name(label: str) -> str:
    """A label as a part of a file name."""
    return "_".join(re.split(r"[^\w.+-]+", label))


def over_images(images: int, runs: int) -> str:
    """Phrase for captions that says over which images the means are."""
    number = f"{images} image{'s' * (images > 1)}"
    return f"means over {number}" if runs == 1 else f"means over the {number} that all {runs} runs have finished"
