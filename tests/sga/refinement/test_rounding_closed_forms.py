"""Every relaxed method against its formula, written a second time with numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sga.refinement.noise import Noise
from sga.refinement.rounding import (
    AtanhRounding,
    CosineRounding,
    CosineThreeRounding,
    DeterministicAnnealing,
    LinearRounding,
    LinearThreeRounding,
    RelaxedRounding,
    SigmoidScaledLogitRounding,
    SigmoidScaledLogitThreeRounding,
)

Array = NDArray[np.float64]


def sigmoid_of_scaled_logit(d: Array, a: float) -> Array:
    return 1 / (1 + (d / (1 - d)) ** a)


TWO: dict[RelaxedRounding, Callable[[Array], Array]] = {
    AtanhRounding(): lambda d: np.exp(-np.arctanh(d)),
    LinearRounding(): lambda d: 1 - d,
    CosineRounding(): lambda d: np.cos(np.pi * d / 2) ** 2,
    SigmoidScaledLogitRounding(1.33): lambda d: sigmoid_of_scaled_logit(d, 1.33),
}
THREE: dict[RelaxedRounding, Callable[[Array], Array]] = {
    LinearThreeRounding(): lambda d: np.maximum(1 - 0.98 * d, 1e-5) ** 1.5,
    LinearThreeRounding(r=0.7, n=1.0): lambda d: np.maximum(1 - 0.7 * d, 1e-5),
    CosineThreeRounding(): lambda d: np.cos(np.pi / 2 * np.minimum(0.98 * d, 1 - 1e-5)) ** 2,
    CosineThreeRounding(r=0.6, n=3.0): lambda d: np.cos(np.pi / 2 * 0.6 * d) ** 3,
    SigmoidScaledLogitThreeRounding(): lambda d: sigmoid_of_scaled_logit(0.98 * d / 1.5, 1.4) ** 1.4,
    SigmoidScaledLogitThreeRounding(r=0.9, n=2.0, a=0.8): lambda d: sigmoid_of_scaled_logit(0.9 * d / 1.5, 0.8) ** 2,
}
METHODS = {**TWO, **THREE}
VALUES = np.array([-2.9, -1.55, -0.3, 0.1, 0.45, 0.501, 0.9, 2.25, 7.6])
TEMPERATURES = (1.0, 0.5, 0.2)


def of_method(method: RelaxedRounding) -> str:
    return " ".join([type(method).__name__, *(f"{name}={value}" for name, value in vars(method).items())])


every_method = pytest.mark.parametrize("method", METHODS, ids=of_method)


def candidates(method: RelaxedRounding, values: Array) -> Array:
    """``[2 or 3, n]``."""
    if method in TWO:
        return np.floor(values) + np.arange(2)[:, None]
    return np.round(values) + np.arange(-1, 2)[:, None]


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(0))
    return np.asarray(weights / weights.sum(0))


def log_weights(method: RelaxedRounding, values: Array) -> Array:
    return np.log(METHODS[method](np.abs(values - candidates(method, values))))


def relaxed(method: RelaxedRounding, values: Array, tau: float, seed: int, offset: float | None = None) -> Array:
    """Samples, in float64."""
    at = None if offset is None else torch.tensor(offset, dtype=torch.float64)
    return method(torch.from_numpy(values)[None], at, tau, Noise([seed])).numpy()[0]


@every_method
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_without_noise_it_is_the_mean_of_the_candidates(method: RelaxedRounding, tau: float) -> None:
    expected = (softmax(log_weights(method, VALUES) / tau) * candidates(method, VALUES)).sum(0)
    found = DeterministicAnnealing(method)(torch.from_numpy(VALUES)[None], None, tau, Noise([0]))
    np.testing.assert_allclose(found.numpy()[0], expected, atol=1e-12)


@every_method
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_a_sample_is_the_gumbel_softmax_of_its_noise(method: RelaxedRounding, tau: float) -> None:
    drawn, like = Noise([3]), torch.zeros(1, len(VALUES))
    if method in TWO:  # one uniform number stands for the difference of two Gumbel variables
        u = drawn.uniform(like).double().numpy()
        noise = np.concatenate([np.zeros_like(u), np.log(u / (1 - u))])
    else:
        noise = np.concatenate([-np.log(-np.log(drawn.uniform(like).double().numpy())) for _ in range(3)])
    weights = softmax((log_weights(method, VALUES) / tau + noise) / tau)
    expected = (weights * candidates(method, VALUES)).sum(0)
    np.testing.assert_allclose(relaxed(method, VALUES, tau, seed=3), expected, atol=1e-4)


@every_method
def test_samples_have_the_mean_of_the_gumbel_softmax(method: RelaxedRounding) -> None:
    tau, number = 0.5, 40_000
    generator = np.random.default_rng(0)
    for value in (0.3, -1.45):
        values = np.full(number, value)
        choices = candidates(method, values)
        logits = log_weights(method, values) / tau
        noise = generator.gumbel(size=logits.shape)
        samples = relaxed(method, values, tau, seed=1)
        assert samples.mean() == pytest.approx((softmax((logits + noise) / tau) * choices).sum(0).mean(), abs=0.012)


@pytest.mark.parametrize("method", THREE, ids=of_method)
def test_three_classes_are_drawn_with_their_probabilities(method: RelaxedRounding) -> None:
    # A relaxed sample does not say which candidate won, but the Gumbel noise does.
    tau, values = 1.0, np.full(40_000, 0.4)
    drawn, like = Noise([5]), torch.zeros(1, len(values))
    noise = np.concatenate([drawn.gumbel(like).double().numpy() for _ in range(3)])
    logits = log_weights(method, values) / tau
    winners = np.bincount((logits + noise).argmax(0), minlength=3) / len(values)
    np.testing.assert_allclose(winners, softmax(logits)[:, 0], atol=0.012)


@every_method
def test_an_offset_shifts_the_grid(method: RelaxedRounding) -> None:
    shifted = relaxed(method, VALUES + 0.37, 0.5, seed=2, offset=0.37)
    np.testing.assert_allclose(shifted, relaxed(method, VALUES, 0.5, seed=2) + 0.37, atol=1e-9)


@every_method
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_gradients_are_those_of_finite_differences(method: RelaxedRounding, tau: float) -> None:
    values = torch.from_numpy(VALUES)[None].requires_grad_()
    offset = torch.tensor(0.03, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: method(v, offset, tau, Noise([4])), (values,))
    assert torch.autograd.gradcheck(lambda v: DeterministicAnnealing(method)(v, offset, tau, Noise([4])), (values,))


def test_three_classes_contain_two() -> None:
    # With r = n = 1 the third candidate of the linear method has no weight.
    three, two = (DeterministicAnnealing(method) for method in (LinearThreeRounding(r=1.0, n=1.0), LinearRounding()))
    values = torch.from_numpy(VALUES)[None]
    torch.testing.assert_close(three(values, None, 0.5, Noise([0])), two(values, None, 0.5, Noise([0])), atol=1e-8, rtol=0)


@pytest.mark.parametrize("parameter", ["r", "n", "a"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_parameters_out_of_range_are_refused(parameter: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{parameter} must be above 0"):
        SigmoidScaledLogitThreeRounding(**{parameter: value})


def test_three_class_noise_of_an_image_is_the_same_in_any_batch() -> None:
    value = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    method = SigmoidScaledLogitThreeRounding()
    together = method(value, None, 0.7, Noise([7, 8, 9]))
    assert torch.equal(method(value[1:2], None, 0.7, Noise([8]))[0], together[1])
