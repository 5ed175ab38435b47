from __future__ import annotations

import pytest

from sga.refinement.expectation import ExpectedRounding
from sga.refinement.presets import DEFAULT_OF_JOBS, PRESETS, preset
from sga.refinement.schedules import Ramp


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_their_files_say(name: str) -> None:
    found = preset(name, steps=7)
    assert isinstance(found.rounding, ExpectedRounding) and found.adapt_prior
    few = {"instant": (Ramp(0.65, 0.95), (0.4, 0.65)), "fast": (Ramp(0.435, 1.145), (0.669, 0.577))}
    assert (found.rounding.excess, found.betas) == few.get(name, (Ramp(0.0, 2.0), (0.8, 0.95)))
    assert found.steps == 7
    assert preset(name).steps == {"instant": 12, "fast": 60, "balanced": 500, "best": 2000}[name]


def test_one_photograph_is_not_waited_for_as_a_job_is() -> None:
    assert preset().steps == preset("instant").steps == 12 and preset(DEFAULT_OF_JOBS).steps == 500
