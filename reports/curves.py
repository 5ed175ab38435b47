"""Curves of the images of a run of ``refine.py``, from its TensorBoard folder."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reports.runs import Run

TENSORBOARD = "tensorboard"


class Curve(NamedTuple):
    """Values ``[n]`` against the steps ``[n]`` at which they were measured, ascending."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


def curves(run: Run, image: str) -> dict[str, Curve]:
    """Curves of an image of a run by their tags: ``relaxed/loss``, ``relaxed/tau``, ``true/rd_loss``, ``true/bpp`` and others.

    Empty where the run has no TensorBoard folder of the image.
    """
    from tensorboard.backend.event_processing import event_accumulator

    folder = run.path / TENSORBOARD / image
    if not folder.is_dir():
        return {}
    everything = {event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 1}  # 0 keeps all
    events = event_accumulator.EventAccumulator(str(folder), size_guidance=everything).Reload()
    found = {}
    for tag in events.Tags()[event_accumulator.SCALARS]:
        scalars = sorted(events.Scalars(tag), key=lambda event: event.step)
        steps = np.array([event.step for event in scalars], dtype=np.int64)
        found[tag] = Curve(steps, np.array([event.value for event in scalars], dtype=np.float64))
    return found
