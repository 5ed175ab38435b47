"""What a report is made of: sections of text, figures and tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports.figures import write_csv


@dataclass(frozen=True)
class Options:
    """What a person may choose about a report.

    Attributes:
        output: Folder of the report.
        reference: Run that the others are compared with; by default their own base (the encoder's latents).
        image: That is drawn; by default one on which the runs differ most.
        at: Left and top pixel of the crops; by default where the runs differ most.
        size: Of the crops, in pixels.
        originals: Folder of the photographs, where they are no longer where the runs found them.
    """

    output: Path
    reference: str | None = None
    image: str | None = None
    at: tuple[int, int] | None = None
    size: int = 160
    originals: Path | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure's files (PNG, SVG, CSV) under its caption; of a ``photograph`` a page shows the PNG."""

    caption: str
    files: Sequence[Path]
    photograph: bool = False


@dataclass(frozen=True)
class Table:
    """Rows to be read by people, and the numbers behind them.

    Attributes:
        title: One line.
        columns: Names, with units.
        rows: Cells as printed.
        data_columns: Names of the CSV's columns.
        data: Rows of the CSV.
        note: Below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data_columns: Sequence[str]
    data: Sequence[Sequence[Any]]
    note: str = ""

    def markdown(self) -> str:
        """Title, table and note."""
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines)
        return f"{self.title}\n\n{table}\n" + (f"\n{self.note}\n" if self.note else "")

    def html(self) -> str:
        """The ``table`` element, with the title as its caption."""

        def cells(tag: str, texts: Sequence[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

        body = "\n".join(cells("td", row) for row in self.rows)
        note = f"\n<p>{html.escape(self.note)}</p>" if self.note else ""
        head = f"<caption>{html.escape(self.title)}</caption>\n<thead>{cells('th', self.columns)}</thead>"
        return f"<table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>{note}"

    def save(self, path: Path) -> list[Path]:
        """Writes Markdown, HTML and CSV beside one another (``path``: without a suffix); returns their paths."""
        path.parent.mkdir(parents=True, exist_ok=True)
        markdown, page, table = (path.with_name(f"{path.name}.{suffix}") for suffix in ("md", "html", "csv"))
        markdown.write_text(self.markdown(), encoding="utf-8")
        page.write_text(f'<!DOCTYPE html>\n<meta charset="utf-8">\n{self.html()}\n', encoding="utf-8")
        write_csv(table, self.data_columns, self.data)
        return [markdown, page, table]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its heading.
        text: A paragraph, or none.
        drawings: Its figures.
        tables: Its tables.
        left_out: What it does not show, and why: a line each.
    """

    title: str
    text: str = ""
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    left_out: Sequence[str] = field(default=())
