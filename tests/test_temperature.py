from __future__ import annotations

import math

import pytest

from lightning_modules.temperature import Constant, HoldThenCosine, ScaledTemperature, SgaPlusTemperature, SgaTemperature


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


def test_hold_then_cosine_ends_near_zero() -> None:
    factor = HoldThenCosine(hold=0.5)
    assert factor(0, 100) == factor(50, 100) == 1.0
    assert factor(75, 100) == pytest.approx(0.5)
    assert 0 < factor(99, 100) < 0.002
    assert HoldThenCosine()(0, 1) == 1.0


def test_constant() -> None:
    assert Constant(0.3)(17, 20) == 0.3
