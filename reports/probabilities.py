"""Probability spaces of the rounding methods: the probability that a value is rounded to each candidate.

These are the figures of Perugachi-Diaz et al. 2024 (arXiv 2401.17789, section 3), drawn from the classes that refine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from reports.figures import PAGE, legend_below, line, new_figure, save, style
from reports.runs import Study
from reports.section import Drawing, Options, Section
from sga.refinement.rounding import (
    CLIP,
    AtanhRounding,
    CosineRounding,
    CosineThreeRounding,
    LinearRounding,
    LinearThreeRounding,
    RelaxedRounding,
    SigmoidScaledLogitRounding,
    SigmoidScaledLogitThreeRounding,
    ThreeClassRounding,
)

METHODS: dict[str, tuple[RelaxedRounding, ...]] = {
    "atanh": (AtanhRounding(),),
    "linear": (LinearRounding(), LinearThreeRounding()),
    "cosine": (CosineRounding(), CosineThreeRounding()),
    "sigmoid scaled logit": (SigmoidScaledLogitRounding(), SigmoidScaledLogitThreeRounding()),
}
"""The published methods with their published settings, of two and of three classes, by name."""

TAUS = (1.0, 0.5, 0.2)


def probabilities(rounding: RelaxedRounding, value: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The candidates of each value and the probability of each, softmax(l_k / tau).

    Args:
        rounding: Method of two or of three classes.
        value: Values to round, ``[n]``.
        tau: Temperature, above 0.

    Returns:
        Candidates and probabilities, ``[k, n]`` each, with k = 2 or 3; the probabilities sum to 1 over the first dimension.
    """
    if isinstance(rounding, ThreeClassRounding):
        candidates = torch.round(value) + torch.tensor([[-1.0], [0.0], [1.0]])
        distances = (value - candidates).abs()
    else:
        candidates = torch.floor(value) + torch.tensor([[0.0], [1.0]])
        distances = (value - candidates).abs().clamp(CLIP, 1 - CLIP)
    return candidates, torch.softmax(rounding.log_weight(distances) / tau, 0)


def draw_probabilities(path: Path, taus: Sequence[float] = TAUS) -> list[Path]:
    """Draws a column of panels per temperature, with two classes (0, 1) above and three (-1, 0, 1) below; returns the files.

    Args:
        path: Path of the files, without a suffix.
        taus: Temperatures, above 0.

    Raises:
        ValueError: A temperature is not above 0.
    """
    if not taus or min(taus) <= 0:
        raise ValueError(f"temperatures must be above 0, not {', '.join(map(str, taus)) or 'none'}")
    rows: list[tuple[object, ...]] = []
    with style():
        figure, panels = new_figure(2, len(taus), PAGE, 3.9)
        for (classes, tau), axes in zip(product((2, 3), taus), panels, strict=True):
            value = torch.linspace(0, 1, 101) if classes == 2 else torch.linspace(-0.5, 0.5, 101)
            for number, (name, roundings) in enumerate(METHODS.items()):
                if len(roundings) <= classes - 2:
                    continue
                # torch rounds halves to even; at the ends, the candidates must be those of the values inside.
                inside = value.clamp(value[0] + 1e-4, value[-1] - 1e-4)
                candidates, found = probabilities(roundings[classes - 2], inside, tau)
                for candidate, of_candidate in zip(candidates[:, 0].int().tolist(), found, strict=True):
                    look = line(number) | {"markevery": (4 * number, 20)}
                    axes.plot(value, of_candidate, label=name if candidate == 0 else None, **look)
                    points = zip(value.tolist(), of_candidate.tolist(), strict=True)
                    rows += [(name, classes, tau, round(v, 6), candidate, p) for v, p in points]
            axes.set(title=f"{'two' if classes == 2 else 'three'} classes, τ = {tau:g}", ylim=(-0.03, 1.03))
            axes.set(xlabel="value v")
        for first in panels[:: len(taus)]:
            first.set_ylabel("probability")
        legend_below(figure, panels[0], len(METHODS))
    return save(figure, path, ("method", "classes", "tau", "v", "candidate", "probability"), rows)


def section(study: Study, options: Options) -> Section:
    """The section with the methods as published, the same for any study."""
    files = draw_probabilities(options.output / "figures/probabilities")
    caption = (
        "Probability that a value v is rounded to each candidate, at falling temperatures. Above, two classes: falling lines for "
        "0, rising lines for 1. Below, three classes: upper lines for 0, rising lower lines for 1, falling lower lines for -1. "
        "Settings as published."
    )
    return Section("Rounding methods", drawings=(Drawing(caption, files),))
