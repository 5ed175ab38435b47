from __future__ import annotations

import pytest

from sga.refinement.expectation import ExpectedRounding
from sga.refinement.presets import PRESETS, preset
from sga.refinement.schedules import Ramp


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_their_files_say(name: str) -> None:
    found = preset(name, steps=7)
    assert isinstance(found.rounding, ExpectedRounding) and found.adapt_prior
    excess, betas = (Ramp(0.65, 0.95), (0.4, 0.65)) if name == "instant" else (Ramp(0.0, 2.0), (0.8, 0.95))
    assert found.rounding.excess == excess and found.steps == 7 and found.betas == betas
    assert preset(name).steps == {"instant": 12, "fast": 150, "balanced": 500, "best": 2000}[name]
