from __future__ import annotations

import math

import pytest
import torch

from sga.refinement.noise import Noise
from sga.refinement.rounding import (
    AtanhRounding,
    CosineRounding,
    CosineThreeRounding,
    DeterministicAnnealing,
    LinearRounding,
    LinearThreeRounding,
    RelaxedRounding,
    Rounding,
    SigmoidScaledLogitRounding,
    SigmoidScaledLogitThreeRounding,
    StraightThrough,
    ThreeClassRounding,
    UniformNoise,
    hard_round,
)

TWO: list[RelaxedRounding] = [AtanhRounding(), LinearRounding(), CosineRounding(), SigmoidScaledLogitRounding(2.3)]
THREE: list[RelaxedRounding] = [LinearThreeRounding(), CosineThreeRounding(), SigmoidScaledLogitThreeRounding()]
RELAXED = TWO + THREE
ANNEALED = [DeterministicAnnealing(method) for method in RELAXED]
DISTANCES = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)


def probability(method: RelaxedRounding, distance: torch.Tensor) -> torch.Tensor:
    """Probability of the candidate at ``distance`` of two, at tau = 1."""
    down, up = method.log_weight(distance), method.log_weight(1 - distance)
    return down.exp() / (down.exp() + up.exp())


def test_log_weights_have_their_closed_forms() -> None:
    for d in DISTANCES.tolist():
        at = torch.tensor(d, dtype=torch.float64)
        assert AtanhRounding().log_weight(at).item() == pytest.approx(-0.5 * math.log((1 + d) / (1 - d)))
        assert LinearRounding().log_weight(at).item() == pytest.approx(math.log(1 - d))
        assert CosineRounding().log_weight(at).item() == pytest.approx(math.log(math.cos(math.pi * d / 2) ** 2))
        for a in (0.65, 1.33, 2.3):
            expected = -math.log1p((d / (1 - d)) ** a)  # log sigmoid(-a logit(d))
            assert SigmoidScaledLogitRounding(a).log_weight(at).item() == pytest.approx(expected)


@pytest.mark.parametrize("method", [LinearRounding(), CosineRounding(), SigmoidScaledLogitRounding(2.3)])
def test_sga_plus_weights_are_probabilities(method: RelaxedRounding) -> None:
    total = method.log_weight(DISTANCES).exp() + method.log_weight(1 - DISTANCES).exp()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_sigmoid_scaled_logit_spans_the_family() -> None:
    torch.testing.assert_close(SigmoidScaledLogitRounding(1.0).log_weight(DISTANCES), LinearRounding().log_weight(DISTANCES))
    near_cosine = probability(SigmoidScaledLogitRounding(1.6), DISTANCES) - probability(CosineRounding(), DISTANCES)
    assert near_cosine.abs().max() < 0.03
    near_atanh = probability(SigmoidScaledLogitRounding(0.65), DISTANCES) - probability(AtanhRounding(), DISTANCES)
    assert near_atanh.abs().max() < 0.03
    steep = probability(SigmoidScaledLogitRounding(200.0), torch.tensor([0.4, 0.6]))
    torch.testing.assert_close(steep, torch.tensor([1.0, 0.0]))


def test_sigmoid_scaled_logit_refuses_a_of_zero() -> None:
    with pytest.raises(ValueError, match="a must be above 0"):
        SigmoidScaledLogitRounding(0.0)


@pytest.mark.parametrize("method", [*RELAXED, *ANNEALED])
def test_low_temperature_is_hard_rounding(method: Rounding) -> None:
    value = torch.linspace(-3, 3, 601).reshape(1, -1) + 0.0013
    value = value[(value % 1 - 0.5).abs() > 0.05][None]
    offset = torch.tensor(0.3)
    for at in (None, offset):
        centred = value if at is None else value - at
        clear = (centred % 1 - 0.5).abs() > 0.05
        relaxed = method(value, at, 1e-3, Noise([0]))
        torch.testing.assert_close(relaxed[clear], hard_round(value, at)[clear])


@pytest.mark.parametrize("method", TWO)
def test_sample_goes_up_as_often_as_the_weights_say(method: RelaxedRounding) -> None:
    tau, value = 0.5, torch.full((1, 200_000), 2.3)
    distances = torch.tensor([0.3, 0.7])
    expected = torch.softmax(method.log_weight(distances) / tau, 0)[1].item()
    # The Gumbel-softmax sample is nearer to the upper candidate exactly when the discrete sample is that candidate.
    up = (method(value, None, tau, Noise([1])) > 2.5).float().mean().item()
    assert up == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("method", [*RELAXED, *ANNEALED])
def test_relaxed_value_has_a_gradient_and_stays_between_its_candidates(method: Rounding) -> None:
    value = (torch.rand(1, 5000, generator=torch.Generator().manual_seed(0)) * 8 - 4).requires_grad_()
    rounded = method(value, None, 0.7, Noise([2]))
    rounded.sum().backward()
    assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().sum() > 0
    three = isinstance(method.method if isinstance(method, DeterministicAnnealing) else method, ThreeClassRounding)
    least, most = (value.round() - 1, value.round() + 1) if three else (value.floor(), value.floor() + 1)
    assert (rounded >= least).all() and (rounded <= most).all()


@pytest.mark.parametrize("method", [*RELAXED, *ANNEALED])
@pytest.mark.parametrize("tau", [1.0, 0.5, 0.01])
def test_relaxed_rounding_is_finite_where_formulas_are_not(method: Rounding, tau: float) -> None:
    edges = torch.cat([torch.arange(-3.0, 3.5, 0.5), torch.tensor([1e-8, 0.99999994, 0.02040816, 1000.0, 8388609.0])])
    value = edges[None].requires_grad_()
    rounded = method(value, None, tau, Noise([0]))
    (grad,) = torch.autograd.grad(rounded.sum(), value)
    assert rounded.isfinite().all() and grad.isfinite().all()


def test_straight_through_rounds_hard_with_gradient_one() -> None:
    value = torch.tensor([[0.4, 0.6, -1.7]], requires_grad=True)
    offset = torch.tensor(0.25)
    rounded = StraightThrough()(value, offset, 1.0, Noise([0]))
    torch.testing.assert_close(rounded, hard_round(value.detach(), offset))
    (rounded * torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    torch.testing.assert_close(value.grad, torch.tensor([[1.0, 2.0, 3.0]]))


def test_uniform_noise_is_uniform_about_the_value() -> None:
    noise = UniformNoise()(torch.full((1, 100_000), 5.0), None, 1.0, Noise([0])) - 5
    assert noise.min() >= -0.5 and noise.max() <= 0.5
    assert noise.mean().abs() < 0.005 and noise.var().item() == pytest.approx(1 / 12, rel=0.02)


def test_hard_round_is_about_the_offset() -> None:
    torch.testing.assert_close(hard_round(torch.tensor([1.1, -0.2]), torch.tensor(0.25)), torch.tensor([1.25, 0.25]))
