from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sga.codecs import Codec
from sga.distortion import TruePixels
from sga.rate_distortion import Objective
from sga.refinement.expectation import Expectation, ExpectedRounding
from sga.refinement.noise import Noise
from sga.refinement.relaxation import Method, Problem, Sampled
from sga.refinement.rounding import (
    AtanhRounding,
    CosineRounding,
    CosineThreeRounding,
    DeterministicAnnealing,
    LinearRounding,
    LinearThreeRounding,
    Rounding,
    SigmoidScaledLogitRounding,
    SigmoidScaledLogitThreeRounding,
    StraightThrough,
    UniformNoise,
    hard_round,
)
from sga.refinement.schedules import Ramp
from tests.conftest import random_image

NAMES: dict[Method, str] = {
    AtanhRounding(): "atanh",
    LinearRounding(): "linear",
    CosineRounding(): "cosine",
    SigmoidScaledLogitRounding(): "sigmoid_scaled_logit",
    LinearThreeRounding(): "linear_three",
    CosineThreeRounding(): "cosine_three",
    SigmoidScaledLogitThreeRounding(): "sigmoid_scaled_logit_three",
    UniformNoise(): "uniform_noise",
    StraightThrough(): "straight_through",
    DeterministicAnnealing(AtanhRounding()): "deterministic_annealing",
    ExpectedRounding(): "expected",
}
"""Finished runs have these names in their tables."""


def problem(codec: Codec, x: Tensor, seeds: list[int]) -> Problem:
    start = codec.quantise(codec.analyse(x), hard_round, hard_round)
    return Problem(codec, x, start, Objective(0.013), TruePixels.of(x), Noise(seeds))


@pytest.mark.parametrize(("method", "name"), NAMES.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_method_has_the_name_of_its_class(method: Method, name: str) -> None:
    assert method.name == name


def test_a_method_is_sampled_or_of_its_own_kind(any_codec: Codec) -> None:
    work = problem(any_codec, random_image(), [0])
    for method in NAMES:
        expected = Expectation if method.name == "expected" else Sampled
        assert type(method.relaxation(work)) is expected
    assert not isinstance(ExpectedRounding(), Rounding) and not callable(ExpectedRounding())


def test_a_sample_of_hard_rounding_is_the_file(any_codec: Codec) -> None:
    x = random_image()
    latents = any_codec.analyse(x)
    found = StraightThrough().relaxation(problem(any_codec, x, [0]))(latents, (), 0.5, 0, 1)
    hard = any_codec.quantise(latents, hard_round, hard_round)
    torch.testing.assert_close(found.bits.y, any_codec.bits(hard).y)
    torch.testing.assert_close(found.bits.z, any_codec.bits(hard).z)
    torch.testing.assert_close(found.x_hat, any_codec.synthesise(any_codec.dequantise(hard)), rtol=1e-3, atol=1e-3)
    assert found.excess is None


def test_any_formula_is_sampled_with_the_temperature_and_the_noise_of_the_batch(any_codec: Codec) -> None:
    x, heard = torch.cat([random_image(), random_image().flip(-1)]), []
    work, latents = problem(any_codec, x, [3, 4]), any_codec.analyse(x)

    def formula(value: Tensor, offset: Tensor | None, tau: float, noise: Noise) -> Tensor:
        assert noise is work.noise and (value is latents.y or value is latents.z)
        heard.append(tau)
        return UniformNoise()(value, offset, tau, noise)

    found = Sampled(formula, work)(latents, (), 0.25, 3, 10)
    assert heard == [0.25] * len(latents.tensors())
    drawn = Noise([3, 4])

    def noisy(value: Tensor, offset: Tensor | None) -> Tensor:
        return value + drawn.uniform(value) - 0.5

    expected = any_codec.quantise(latents, noisy, noisy)
    torch.testing.assert_close(found.bits.total, any_codec.bits(expected).total)
    torch.testing.assert_close(found.x_hat, any_codec.synthesise(any_codec.dequantise(expected)), rtol=1e-3, atol=1e-3)


def test_a_step_is_that_of_the_optimiser(any_codec: Codec) -> None:
    x = random_image()
    latents = any_codec.analyse(x).map(lambda value: value.requires_grad_())
    before = latents.map(lambda value: value.detach().clone())
    optimizer = torch.optim.SGD(latents.tensors(), lr=0.5)
    for value in latents.tensors():
        value.grad = torch.full_like(value, 2.0)
    StraightThrough().relaxation(problem(any_codec, x, [0])).step(latents, optimizer)
    for value, old in zip(latents.tensors(), before.tensors(), strict=True):
        torch.testing.assert_close(value.detach(), old - 1)


def test_a_method_at_rest_is_as_it_was_at_that_step() -> None:
    sampled = SigmoidScaledLogitRounding(1.7)
    assert sampled.resting_at(50, 100) is sampled
    method = ExpectedRounding(z=LinearRounding(), excess=Ramp(0.0, 2.0), probes=10, stops=False)
    rest = method.resting_at(30, 100)
    assert (rest.z, rest.probes, rest.stops) == (method.z, 2, False)
    assert [rest.excess(step, 10) for step in (0, 5, 9)] == pytest.approx([method.excess(30, 100)] * 3)
    assert ExpectedRounding(probes=1).resting_at(0, 1).probes == 1
