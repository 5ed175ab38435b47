"""HTML page of a run or a study; all pictures are inside it, so that it needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from reports import bd_tables, latent_maps, optimisation, probabilities, rd_curves, tables, zoomed
from reports.runs import Study, method_names, relative
from reports.section import Drawing, Options, Section
from sga.files import write_atomically
from sga.runs.folder import REPORT_PAGE, RESULTS

SECTIONS: list[Callable[[Study, Options], Section]] = [
    tables.section,
    rd_curves.section,
    bd_tables.section,
    optimisation.section,
    zoomed.section,
    latent_maps.section,
    probabilities.section,
]
"""Functions of the parts of a report, in order. Each writes its files and returns a section, or raises ValueError with a reason."""


OWN = {
    '<meta name="generator" content="sga report">',
    "Numbers are measured from files: their bytes, and the 8-bit images that they decode to.</p>",  # of earlier versions
}
"""Lines by which a page is known as that of a report."""


def write_report(study: Study, options: Options) -> tuple[Path, list[str]]:
    """Writes every part that the runs allow, and ``index.html`` with all parts.

    Returns:
        Path of the page, and the reasons for all that was left out.

    Raises:
        ValueError: The folder holds another page, no run has the name of the reference or of a run to draw, or no run has finished
            the image to draw.
    """
    names = [run.name for run in study.runs]
    if options.reference is not None and options.reference not in names:
        raise ValueError(f"no run {options.reference} to compare with: there are {', '.join(names)}")
    if unknown := [name for name in options.runs if name not in names]:
        raise ValueError(f"no run {', '.join(unknown)} to draw: there are {', '.join(names)}")
    if options.image is not None and not any(options.image in run.by_image for run in study.runs):
        raise ValueError(f"no run has finished an image {options.image}: there are {', '.join(study.runs[0].by_image)}")
    page = options.output / REPORT_PAGE
    if page.exists() and OWN.isdisjoint(page.read_text(encoding="utf-8", errors="replace").splitlines()):
        raise ValueError(f"-o {options.output}: its {REPORT_PAGE} is not that of a report; choose another folder")
    options.output.mkdir(parents=True, exist_ok=True)
    left_out = [f"run {name}: {reason}" for name, reason in study.left_out.items()]
    for run in study.runs:
        if run.damaged:
            left_out.append(f"{len(run.damaged)} images of {run.name}: damaged results, or of an older version")
        if run.outside:
            found = f"{len(run.outside)} images of {run.name} that its {RESULTS} does not cover"
            left_out.append(f"{found} (renamed, or the job was stopped; run it again): {', '.join(run.outside)}")
    sections: list[Section] = []
    for make in SECTIONS:
        part = make.__module__.rsplit(".", 1)[-1]
        try:
            section = make(study, options)
        except (ValueError, OSError) as error:
            left_out.append(f"{part}: {error}")
            continue
        sections.append(section)
        left_out += [f"{part}: {reason}" for reason in section.left_out]
    write_atomically(page, render(study, sections, [relative(reason, study.path) for reason in left_out]).encode())
    return page, left_out


def render(study: Study, sections: Sequence[Section], left_out: Sequence[str]) -> str:
    """HTML of the page."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = _inline
    template = environment.get_template("page.html.jinja")
    return template.render(
        study=study,
        name=study.path.resolve().name,
        methods=method_names(study.runs),
        sections=sections,
        left_out=left_out,
    )


def _inline(drawing: Drawing) -> str:
    """A figure as a data URL for ``img``: lines as SVG, photographs as PNG."""
    suffix, kind = (".png", "png") if drawing.photograph else (".svg", "svg+xml")
    (path,) = (path for path in drawing.files if path.suffix == suffix)
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
