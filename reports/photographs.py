"""The pictures of a run: originals from the folder that it read, base and refined images from its own files."""

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
from sga.loading import load_codec
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS, CONFIG, RECONSTRUCTIONS

load_once = lru_cache(maxsize=2)(load_codec)
"""The codec of a checkpoint; the last two are kept."""


def original(run: Run, image: str, folder: Path | None = None) -> Tensor:
    """The photograph, uint8 ``[3, H, W]``, checked to be the one that was refined.

    Args:
        run: That refined it.
        image: Its name in the run.
        folder: Of the photographs; by default where the run found them.

    Raises:
        ValueError: It is not there, or is another photograph.
        OSError: The folder is not there.
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
    """What the unrefined file decodes to, uint8 ``[3, H, W]``.

    Raises:
        ValueError: The checkpoint or the file cannot be used.
        OSError: The file is not there.
    """
    return decode_image(load_once(run.checkpoint), _file(run, BASE_BITSTREAMS, image))


def refined_image(run: Run, image: str) -> Tensor:
    """What the refined file decodes to, uint8 ``[3, H, W]``: the run's own reconstruction, else decoded.

    Raises:
        ValueError: The checkpoint or the file cannot be used.
        OSError: The file is not there.
    """
    picture = run.path / RECONSTRUCTIONS / f"{image}.png"
    return read_image(picture) if picture.is_file() else decode_image(load_once(run.checkpoint), _file(run, BITSTREAMS, image))


def file_latents(run: Run, image: str, refined: bool) -> Quantised:
    """The latents in one of a run's two files of an image, with the prior that codes them.

    Raises:
        ValueError: The checkpoint or the file cannot be used.
        OSError: The file is not there.
    """
    return decode_latents(load_once(run.checkpoint), _file(run, BITSTREAMS if refined else BASE_BITSTREAMS, image))


def most_different_image(runs: Sequence[Run]) -> str:
    """Of the images that runs share, the one whose refinement gained most in one of them, as a share of the base's R-D loss.

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
    """Runs to look at beside one another: the named ones; else the best of each method, SGA's own (atanh) first, then those of
    the lowest loss.

    With a target of bpp the best are those of the highest PSNR, with one of PSNR those of the lowest bpp.

    Args:
        runs: Of one group of :func:`reports.runs.comparable`.
        names: Those that are asked for, of any group.
        most: Of them, without names.

    Raises:
        ValueError: No run has a step or, of names, none is of this group; or the runs share no image.
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


def _file(run: Run, folder: str, image: str) -> bytes:
    return (run.path / folder / f"{image}.bin").read_bytes()
