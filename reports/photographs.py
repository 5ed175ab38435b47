"""Pictures of a run: originals from the folder that it read, base and refined images from its own files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from data.refinement_data import RefinementDataModule
from reports.runs import Run, refined_runs, shared_images
from sga.bitstream import decode_image, decode_latents
from sga.codecs import Quantised
from sga.images import read_image
from sga.loading import LoadedCodec, load_codec
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS, CONFIG, RECONSTRUCTIONS

load_once = lru_cache(maxsize=2)(load_codec)
"""Codec of a checkpoint; the last two are kept in memory."""


def original(run: Run, image: str, folder: Path | None = None) -> Tensor:
    """The original photograph, uint8 ``[3, H, W]``, checked to be the one that was refined.

    Args:
        run: Run that refined it.
        image: Name of the image in the run.
        folder: Folder of the photographs; by default the one that the run read.

    Raises:
        ValueError: The photograph is missing, or is another one.
        OSError: The folder is missing.
    """
    data = run.config.get("data")
    known = data if isinstance(data, Mapping) else {}
    where = folder or known.get("root")
    if where is None:
        raise ValueError(f"{run.path / CONFIG} does not say where the photographs are: give --originals")
    images = RefinementDataModule(str(where), limit=None if folder else known.get("limit"))
    for file in images.files:
        if file.name == image:
            if file.sha256() != run.sources[image]:
                raise ValueError(f"{file.path} is not the photograph that {run.name} has refined")
            return read_image(file.path)
    raise ValueError(f"{where} holds no image {image}")


def base_image(run: Run, image: str) -> Tensor:
    """The picture of the unrefined file, uint8 ``[3, H, W]``.

    Raises:
        ValueError: The checkpoint or the file cannot be used.
        OSError: The file is missing.
    """
    return decode_image(*_coded(run, BASE_BITSTREAMS, image))


def refined_image(run: Run, image: str) -> Tensor:
    """The picture of the refined file, uint8 ``[3, H, W]``: read from the run's reconstructions, or decoded where it is not there.

    Raises:
        ValueError: The checkpoint or the file cannot be used.
        OSError: The file is missing.
    """
    picture = run.path / RECONSTRUCTIONS / f"{image}.png"
    return read_image(picture) if picture.is_file() else decode_image(*_coded(run, BITSTREAMS, image))


def file_latents(run: Run, image: str, refined: bool) -> Quantised:
    """Latents in the refined file (or else the unrefined file) of an image, with the prior that codes them.

    Raises:
        ValueError: The checkpoint or the file cannot be used.
        OSError: The file is missing.
    """
    return decode_latents(*_coded(run, BITSTREAMS if refined else BASE_BITSTREAMS, image))


def most_different_image(runs: Sequence[Run]) -> str:
    """Name of the shared image with the largest gain in any of the runs, relative to the R-D loss of its base.

    Raises:
        ValueError: The runs share no image.
    """
    images = shared_images(runs)
    if not images:
        raise ValueError("the runs share no finished image")

    def gain(image: str) -> float:
        return max(1 - run.by_image[image].rd_loss / run.by_image[image].rd_loss_base for run in runs)

    return max(images, key=gain)


def telling_runs(runs: Sequence[Run], names: Sequence[str] = (), most: int = 2) -> list[Run]:
    """Runs to show beside one another: those in ``names``; without names, the best run of each method.

    The best run has the lowest mean R-D loss; for a target bpp the highest mean PSNR, for a target PSNR the lowest mean bpp. SGA's
    own method (atanh) comes first, the others follow from the best on.

    Args:
        runs: Runs of one group of :func:`reports.runs.comparable`.
        names: Names of the runs that are asked for, of any group.
        most: Largest number of runs where no names are given.

    Raises:
        ValueError: No run has a step, none of the names is in this group, or the runs share no image.
    """
    named = {run.name: run for run in runs}
    if names and named.keys().isdisjoint(names):
        raise ValueError(f"none of the runs {', '.join(names)} is of this model and lambda")
    refined = refined_runs([named[name] for name in names if name in named] if names else runs)
    images = shared_images(refined)
    if not images:
        raise ValueError("the runs share no finished image")
    if names:
        return refined

    def loss(run: Run) -> float:
        if run.target is None:
            return run.mean("rd_loss", images) or 0.0
        if run.target.quantity == "psnr_db":
            return run.mean("bpp", images) or 0.0
        quality = run.mean("psnr_db", images)
        return -math.inf if quality is None else -quality

    best: dict[str, Run] = {}
    for run in sorted(refined, key=loss):
        best.setdefault(run.results[0].method, run)
    return sorted(best.values(), key=lambda run: (run.results[0].method != "atanh", loss(run)))[:most]


def _coded(run: Run, folder: str, image: str) -> tuple[LoadedCodec, bytes]:
    """The codec of a run and one of its files; where there is no file, no model is read or downloaded for it."""
    content = (run.path / folder / f"{image}.bin").read_bytes()
    return load_once(run.checkpoint), content
