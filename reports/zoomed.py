"""Crops of the same place side by side: original, base, and runs, with the bpp and PSNR of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reports.figures import PAGE, new_figure, save, style
from reports.photographs import base_image, most_different_image, original, refined_image, telling_runs
from reports.runs import Run, Study
from reports.section import Drawing, Options, Section, file_name, section_of_groups
from sga.measures import psnr_db

GRID = 8
"""Distance in pixels between the places that are tried."""


def place(photograph: Tensor, decoded: Sequence[Tensor], size: int) -> tuple[int, int]:
    """Left and top pixel of the square in which the mean squared errors of decoded images differ most.

    Args:
        photograph: Original, uint8 ``[3, H, W]``.
        decoded: Decoded images of the same shape, at least two.
        size: Side of the square in pixels, at most the shorter side of the image.
    """
    errors = torch.stack([(image.float() - photograph.float()).square().mean(0) for image in decoded])
    means = F.avg_pool2d(errors[:, None], size, stride=GRID)[:, 0]
    spread = means.amax(0) - means.amin(0)
    top, left = divmod(int(spread.argmax()), spread.shape[1])
    return GRID * left, GRID * top


def draw_crops(
    runs: Sequence[Run],
    image: str,
    path: Path,
    size: int = 160,
    at: tuple[int, int] | None = None,
    originals: Path | None = None,
) -> tuple[list[Path], tuple[int, int]]:
    """Draws crops of the original, the base and each run's image side by side, under the bpp and PSNR of the whole files.

    Args:
        runs: Runs of one codec, at least one; the base is that of the first.
        image: Name of the image in the runs.
        path: Path of the files, without a suffix.
        size: Side of the square in pixels, reduced to the shorter side of the image where that is less.
        at: Left and top pixel of the square; by default where the images differ most.
        originals: Folder of the photographs; by default the one that the runs read.

    Returns:
        Paths of the files, and left and top pixel of the square.

    Raises:
        ValueError: A run lacks the image, the square is not inside it, or a file cannot be used.
        OSError: A file is missing.
    """
    for run in runs:
        if image not in run.by_image:
            raise ValueError(f"the run {run.name} has not finished an image {image}")
    photograph = original(runs[0], image, originals)
    first = runs[0].by_image[image]
    decoded = {"base": base_image(runs[0], image)} | {run.name: refined_image(run, image) for run in runs}
    height, width = photograph.shape[-2:]
    size = min(size, height, width)
    left, top = at if at is not None else place(photograph, list(decoded.values()), size)
    if not (0 <= left <= width - size and 0 <= top <= height - size):
        raise ValueError(f"a square of {size} pixels at {left},{top} is not inside {image}: it has {width} x {height} pixels")
    measured = {"base": (first.base, first.rd_loss_base)}
    measured |= {run.name: (run.by_image[image].refined, run.by_image[image].rd_loss) for run in runs}
    by_loss = runs[0].target is None
    square = (slice(None), slice(top, top + size), slice(left, left + size))
    rows: list[tuple[object, ...]] = []
    with style():
        figure, panels = new_figure(1, len(decoded) + 1, PAGE, PAGE / (len(decoded) + 1) + 0.38)
        panels[0].imshow(photograph[square].permute(1, 2, 0).numpy(), interpolation="nearest")
        panels[0].set_title("original\n")
        for axes, (name, pixels) in zip(panels[1:], decoded.items(), strict=True):
            quality, loss = measured[name]
            axes.imshow(pixels[square].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title(f"{name}\n{quality.bpp:.3f} bpp, {quality.psnr_text}")
            losses = (loss,) if by_loss else ()
            of_crop = psnr_db(photograph[square], pixels[square])
            rows.append((name, image, left, top, size, quality.bpp, quality.psnr_db, *losses, of_crop))
        for axes in panels:
            axes.set_axis_off()
    loss_column = ("R-D loss",) if by_loss else ()
    columns = ("image", "photograph", "left", "top", "size", "bpp", "PSNR dB", *loss_column, "PSNR dB of the crop")
    return save(figure, path, columns, rows), (left, top)


def section(study: Study, options: Options) -> Section:
    """The section with a picture per codec and lambda of a study.

    Raises:
        ValueError: No run of the study can be drawn.
    """

    def draw(label: str, runs: Sequence[Run]) -> Drawing:
        chosen = telling_runs(runs, options.runs)
        image = options.image or most_different_image(chosen)
        path = options.output / f"figures/crops_{file_name(label)}"
        files, (left, top) = draw_crops(chosen, image, path, options.size, options.at, options.originals)
        where = "" if options.at else ", where the images differ most"
        caption = f"{label}: crop of {image} at {left}, {top}{where}. bpp and PSNR are those of the whole image."
        return Drawing(caption, files, photograph=True)

    return section_of_groups(study, "Images", draw)
