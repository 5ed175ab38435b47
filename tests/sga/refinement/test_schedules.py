from __future__ import annotations

import math

import pytest

from sga.refinement.schedules import (
    Constant,
    HoldThenCosine,
    ScaledSgaTemperature,
    ScaledTemperature,
    Schedule,
    SgaPlusTemperature,
    SgaTemperature,
)


def test_sga_holds_then_decays() -> None:
    tau = SgaTemperature()
    assert tau(0, 2000) == tau(700, 2000) == 0.5
    assert tau(1700, 2000) == pytest.approx(0.5 * math.exp(-1))


def test_sga_plus_is_capped() -> None:
    tau = SgaPlusTemperature(tau_max=0.5)
    assert tau(0, 2000) == 0.5
    assert tau(1000, 2000) == pytest.approx(math.exp(-1))


def test_scaled_is_sga_plus_at_2000_steps_and_follows_the_number_of_steps() -> None:
    for step in (0, 500, 1999):
        assert ScaledTemperature()(step, 2000) == pytest.approx(SgaPlusTemperature()(step, 2000))
    assert ScaledTemperature()(75, 150) == pytest.approx(ScaledTemperature()(1000, 2000))


def test_scaled_sga_is_sga_at_2000_steps_and_follows_the_number_of_steps() -> None:
    for step in (0, 700, 701, 1999):
        assert ScaledSgaTemperature()(step, 2000) == pytest.approx(SgaTemperature()(step, 2000))
    assert ScaledSgaTemperature()(75, 150) == pytest.approx(ScaledSgaTemperature()(1000, 2000))


SCHEDULES = (Constant(), SgaTemperature(), ScaledSgaTemperature(), SgaPlusTemperature(), ScaledTemperature(), HoldThenCosine())


@pytest.mark.parametrize("steps", [1, 2, 150, 2000])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_every_schedule_is_above_zero_and_never_rises(schedule: Schedule, steps: int) -> None:
    values = [schedule(step, steps) for step in range(steps)]
    assert values[-1] > 0 and values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (Constant, {"value": 0.0}, "value must be above 0"),
        (SgaTemperature, {"tau_max": -1.0}, "tau_max must be above 0"),
        (SgaTemperature, {"t0": -1}, "t0 must be at least 0"),
        (ScaledSgaTemperature, {"hold": 1.5}, "hold must be in"),
        (SgaPlusTemperature, {"rate": math.nan}, "rate must be above 0"),
        (ScaledTemperature, {"decay": 0.0}, "decay must be above 0"),
        (HoldThenCosine, {"hold": 1.0}, "hold must be in"),
    ],
)
def test_settings_out_of_range_are_refused(schedule: type[Schedule], settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(**settings)


def test_hold_then_cosine_ends_near_zero() -> None:
    factor = HoldThenCosine(hold=0.5)
    assert factor(0, 100) == factor(50, 100) == 1.0
    assert factor(75, 100) == pytest.approx(0.5)
    assert 0 < factor(99, 100) < 0.002
    assert HoldThenCosine()(0, 1) == 1.0


def test_constant() -> None:
    assert Constant(0.3)(17, 20) == 0.3
