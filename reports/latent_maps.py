"""Latents in a run's files beside the scales that the hyperprior predicts: figure 2 of Balle et al. 2018, base and refined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from reports.figures import PAGE, new_figure, save, style
from reports.photographs import base_image, file_latents, load_once, most_different_image, refined_image, telling_runs
from reports.runs import Run, Study
from reports.section import Drawing, Options, Section, file_name, section_of_groups
from sga.images import to_float
from sga.latent_channel import channel_of, draw_channel, telling_channel


def draw_latents(run: Run, image: str, path: Path) -> list[Path]:
    """Draws the decoded image and, for one channel, y_hat, the predicted sigma, and y_hat / sigma: base above, refined below.

    The channel is the one in which the base's predicted scales save the most bits; both rows have the same ranges of grey. A codec
    with predicted means, or a file whose prior is adapted, has a panel of the means too; a codec without a hyperprior has y_hat
    alone.

    Args:
        run: Run of the files.
        image: Name of the image in the run.
        path: Path of the figure's files, without a suffix.

    Returns:
        Paths of the figure's files.

    Raises:
        ValueError: The run lacks the image, or its checkpoint or a file cannot be used.
        OSError: A file is missing.
    """
    if image not in run.by_image:
        raise ValueError(f"the run {run.name} has not finished an image {image}")
    latents = {"base": file_latents(run, image, refined=False), run.name: file_latents(run, image, refined=True)}
    decoded = {"base": base_image(run, image), run.name: refined_image(run, image)}
    number = telling_channel(latents["base"])
    codec = load_once(run.checkpoint).codec
    channels = {name: channel_of(codec, each.y_hat, each.adapted_prior, number, decoded[name]) for name, each in latents.items()}
    # An adapted prior may have means where the base's prior has none, perhaps only in other channels than this one.
    means = {name: torch.zeros_like(each.y) if each.means is None else each.means for name, each in channels.items()}
    told = any(values.any() for values in means.values())
    channels = {name: replace(channel, means=means[name] if told else None) for name, channel in channels.items()}
    rows: list[tuple[object, ...]] = []
    pictures = {}
    for name, channel in channels.items():
        pictures[name] = draw_channel(channel, to_float(decoded[name]), "ŷ", list(channels.values()))
        maps = [None if values is None else values.tolist() for values in (channel.means, channel.scales, channel.whitened)]
        for i, of_row in enumerate(channel.y.tolist()):
            rows += [(name, number, i, j, y, *(values and values[i][j] for values in maps)) for j, y in enumerate(of_row)]
    columns = len(pictures["base"])
    height, width = decoded["base"].shape[-2:]
    with style():
        figure, panels = new_figure(2, columns, PAGE, 2 * (PAGE / columns * height / width + 0.25))
        every = [(name, *panel) for name, of_name in pictures.items() for panel in of_name.values()]
        for axes, (name, caption, pixels) in zip(panels, every, strict=True):
            axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title((name if caption == "image" else caption).replace("sigma", "\N{GREEK SMALL LETTER SIGMA}"), fontsize=7)
            axes.set_axis_off()
    return save(figure, path, ("file", "channel", "row", "column", "y_hat", "mu", "sigma", "normalised"), rows)


def section(study: Study, options: Options) -> Section:
    """The section with a picture per codec and lambda of a study, of one of the best runs.

    Raises:
        ValueError: No run of the study can be drawn.
    """

    def draw(label: str, runs: Sequence[Run]) -> Drawing:
        chosen = telling_runs(runs, options.runs)
        run = chosen[-1]
        image = options.image or most_different_image(chosen)
        files = draw_latents(run, image, options.output / f"figures/latents_{file_name(label)}")
        caption = (
            f"{label}: latents of {image} in the files, base above, {run.name} below. From the left: the decoded image, the "
            "quantised latents of one channel, their predicted means (where there are any), their predicted standard deviations, "
            "and the latents (less their means) divided by the standard deviations."
        )
        return Drawing(caption, files, photograph=True)

    return section_of_groups(study, "Latents", draw)
