"""Convergence of the runs of a study: true R-D loss, gap, PSNR and bpp against the step, as means over the shared images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from reports.curves import Curve, curves
from reports.figures import PAGE, legend_below, lines, new_figure, save, style
from reports.runs import Run, Study, refined_runs, shared_images
from reports.section import Drawing, Options, Section, file_name, over_images, section_of_groups

PANELS = {
    "true/rd_loss": "true R-D loss",
    "gap": "method's loss - true loss",
    "true/psnr_db": "PSNR (dB)",
    "true/bpp": "bits per pixel",
}
"""Quantities that are drawn, and the labels of their axes."""
COLUMNS = {
    "true/rd_loss": "true R-D loss",
    "gap": "method's loss - true loss",
    "true/psnr_db": "PSNR dB",
    "true/bpp": "bpp",
}
"""Columns of the CSV of these quantities."""
OF_LOSSES = ("true/rd_loss", "gap")
"""Quantities that are not drawn for runs with a target, in which each image has a lambda of its own."""


def mean_curves(run: Run, images: Sequence[str]) -> dict[str, Curve]:
    """Means over images of the quantities of :data:`PANELS`, at the steps that all the images have.

    ``true/*`` are measured on hard-rounded latents, with bits by the densities; ``gap`` is the method's own loss minus the true
    loss of the same latents.

    Raises:
        ValueError: An image has no curves.
    """
    found = []
    for image in images:
        of_image = curves(run, image)
        if not {"true/rd_loss", "true/psnr_db", "true/bpp", "relaxed/loss"} <= of_image.keys():
            raise ValueError(f"the run {run.name} has no curves of {image} in its tensorboard folder")
        relaxed, true = of_image["relaxed/loss"], of_image["true/rd_loss"]
        steps, of_relaxed, of_true = np.intersect1d(relaxed.steps, true.steps, return_indices=True)
        found.append(of_image | {"gap": Curve(steps, relaxed.values[of_relaxed] - true.values[of_true])})
    return {name: _mean([of_image[name] for of_image in found]) for name in PANELS}


def _mean(several: Sequence[Curve]) -> Curve:
    steps = several[0].steps
    for curve in several[1:]:
        steps = np.intersect1d(steps, curve.steps)
    return Curve(steps, np.mean([curve.values[np.isin(curve.steps, steps)] for curve in several], axis=0))


def draw_optimisation(means: Mapping[str, dict[str, Curve]], drawn: Sequence[str], images: int, path: Path) -> list[Path]:
    """Draws two panels per row, with a line per run; returns the paths of the files.

    Args:
        means: Curves of each run (:func:`mean_curves`), by its name.
        drawn: Quantities of :data:`PANELS` to draw.
        images: Number of images of the means.
        path: Path of the files, without a suffix.
    """
    looks = lines(means)
    rows = len(drawn) // 2
    with style():
        figure, panels = new_figure(rows, 2, PAGE, 2.3 * rows + 0.15 * (len(means) // 4))
        for axes, quantity in zip(panels, drawn, strict=True):
            for number, (name, of_run) in enumerate(means.items()):
                curve = of_run[quantity]
                # About six markers per line, not at the same steps as those of its neighbours.
                every = max(1, len(curve.steps) // 6)
                look = looks[name] | {"markevery": (number * every // len(means), every)}
                axes.plot(curve.steps, curve.values, label=name, **look)
            axes.set(xlabel="step", ylabel=PANELS[quantity], xlim=(0, None))
        if "gap" in drawn:
            _keep_in_view(panels, list(means.values()))
            panels[drawn.index("gap")].axhline(0, color="#888888", linewidth=0.6)
        legend_below(figure, panels[0], 4)
    columns = ("run", "step", *(COLUMNS[quantity] for quantity in drawn), "images")
    return save(figure, path, columns, _rows(means, drawn, images))


def _keep_in_view(panels: Sequence[Axes], means: Sequence[dict[str, Curve]]) -> None:
    """Limits the axes to runs whose loss stays near the start or below, so that these can be told apart."""
    losses = [of_run["true/rd_loss"].values for of_run in means]
    start, lowest = max(values[0] for values in losses), min(values.min() for values in losses)
    top = start + 0.5 * (start - lowest)
    inside = [of_run for of_run, values in zip(means, losses, strict=True) if values.max() <= top]
    if top == start or not inside or len(inside) == len(means):
        return
    for axes, quantity in zip(panels, PANELS, strict=True):
        values = np.concatenate([of_run[quantity].values for of_run in inside])
        margin = 0.08 * float(np.ptp(values))
        axes.set_ylim(values.min() - margin, values.max() + margin)


def _rows(means: Mapping[str, dict[str, Curve]], drawn: Sequence[str], images: int) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, of_run in means.items():
        at = {quantity: dict(zip(*(values.tolist() for values in curve), strict=True)) for quantity, curve in of_run.items()}
        rows += [(name, step, *(at[quantity].get(step) for quantity in drawn), images) for step in at["true/bpp"]]
    return rows


def section(study: Study, options: Options) -> Section:
    """The section with a figure per codec and lambda, or target, of a study.

    Raises:
        ValueError: No run of the study has curves.
    """

    def draw(label: str, runs: Sequence[Run]) -> Drawing:
        refined = refined_runs(runs)
        images = shared_images(refined)
        if not images:
            raise ValueError("the runs share no finished image")
        means, without = {}, []
        for run in refined:
            try:
                means[run.name] = mean_curves(run, images)
            except ValueError as error:
                without.append(str(error))
        if not means:
            raise ValueError("; ".join(without))
        drawn = [quantity for quantity in PANELS if refined[0].target is None or quantity not in OF_LOSSES]
        files = draw_optimisation(means, drawn, len(images), options.output / f"figures/optimisation_{file_name(label)}")
        of_rounded = "PSNR and bits per pixel (by the densities) of the latents rounded hard."
        if refined[0].target is None:
            of_rounded = (
                "Above: R-D loss of the latents rounded hard, and the method's own loss minus it. "
                f"Below: {of_rounded} The axes do not cover runs whose loss rises far above the start."
            )
        left_out = "".join(f" Left out: {reason}." for reason in without)
        caption = f"{label}: {over_images(len(images), len(refined))}. {of_rounded}{left_out}"
        return Drawing(caption, files)

    return section_of_groups(study, "Optimisation", draw)
