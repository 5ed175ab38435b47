from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sga.codecs import Codec, Latents, MeanScaleHyperpriorCodec, ScaleHyperpriorCodec
from sga.distortion import TruePixels, mean_squared_error
from sga.images import pad, to_float
from sga.loading import LoadedCodec
from sga.rate_distortion import Objective, rate_distortion
from sga.refinement.expectation import Expectation, ExpectedRounding
from sga.refinement.noise import Noise
from sga.refinement.refiner import refine
from sga.refinement.relaxation import Problem, Relaxation
from sga.refinement.rounding import DeterministicAnnealing, LinearRounding, SigmoidScaledLogitRounding, hard_round
from sga.refinement.schedules import Constant, HoldThenCosine, ScaledTemperature
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import FixedLambda
from tests.conftest import random_codec

OBJECTIVE = Objective(0.013)
FIXED = FixedLambda(OBJECTIVE)
SAMPLES = 300
FAST = RefinerSettings(
    rounding=ExpectedRounding(),
    temperature=ScaledTemperature(),
    steps=20,
    learning_rate=0.2,
    learning_rate_z=0.03,
    learning_rate_factor=HoldThenCosine(),
    betas=(0.8, 0.95),
    evaluate_every=10,
    precision="fp32",
)


def random_rounding(value: Tensor, generator: torch.Generator) -> Tensor:
    """Each element alone, up with the probability of its fractional part."""
    floor = value.floor()
    return floor + (torch.rand(value.shape, generator=generator) < value - floor)


def problem(codec: Codec, x: Tensor, y: Tensor, sizes: list[tuple[int, int]] | None = None) -> Problem:
    start = replace(codec.quantise(codec.analyse(x), hard_round, hard_round), y_hat=y)
    return Problem(codec, x, start, OBJECTIVE, TruePixels.of(x, sizes), Noise(range(len(x))))


def at_work(codec: Codec, x: Tensor, y: Tensor, sizes: list[tuple[int, int]] | None = None, probes: int = 16) -> Relaxation:
    rounding = ExpectedRounding(z=DeterministicAnnealing(LinearRounding()), excess=Constant(1.0), probes=probes)
    return rounding.relaxation(problem(codec, x, y, sizes))


def test_the_bits_are_the_mean_over_random_roundings(small_codec: ScaleHyperpriorCodec) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    latents = small_codec.analyse(x)
    found = at_work(small_codec, x, latents.y)(latents, (), 0.01, 0, 1)
    at_rest = small_codec.quantise(latents, hard_round, hard_round)  # z at a low temperature is rounded hard too
    samples = [float(small_codec.bits(replace(at_rest, y_hat=random_rounding(latents.y, generator))).y) for _ in range(SAMPLES)]
    assert float(found.bits.y) == pytest.approx(sum(samples) / SAMPLES, rel=0.01)
    assert float(found.bits.z) == pytest.approx(float(small_codec.bits(at_rest).z), rel=1e-3)
    assert torch.equal(found.x_hat, small_codec.synthesise(latents.y))


def test_the_excess_is_the_squared_error_that_random_rounding_adds(small_codec: ScaleHyperpriorCodec) -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.ConvTranspose2d(12, 3, 24, stride=16, padding=4))  # there the second order is exact
    small_codec.net.g_s = linear
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(1, 3, 128, 128), torch.randn(1, 12, 8, 8) * 2
    latents = Latents(y, small_codec.analyse(x).z)
    found = at_work(small_codec, x, y, probes=256)(latents, (), 0.5, 0, 1)
    with torch.no_grad():
        mean = float(mean_squared_error(x, linear(y)))
        samples = [float(mean_squared_error(x, linear(random_rounding(y, generator)))) for _ in range(SAMPLES)]
    assert found.excess is not None
    assert float(found.excess) == pytest.approx(sum(samples) / SAMPLES - mean, rel=0.05)


def test_the_excess_is_weighted_from_0_upwards_and_gone_at_integers(small_codec: ScaleHyperpriorCodec) -> None:
    x = torch.rand(1, 3, 64, 64)
    latents = small_codec.analyse(x)
    work = ExpectedRounding().relaxation(problem(small_codec, x, latents.y))
    first, middle = work(latents, (), 0.5, 0, 10).excess, work(latents, (), 0.5, 5, 10).excess
    assert first is not None and middle is not None
    assert float(first) == 0 and float(middle) > 0
    rounded = Latents(latents.y.round(), latents.z)
    at_integers = work(rounded, (), 0.5, 5, 10)
    assert at_integers.excess is not None and float(at_integers.excess) == 0


def loss_of(work: Relaxation, x: Tensor, latents: Latents, tau: float = 0.01) -> Tensor:
    """The loss in bits of the whole image, halfway."""
    true = TruePixels.of(x)
    now = work(latents, (), tau, 5, 10)
    return (rate_distortion(x, now.x_hat, now.bits, OBJECTIVE, true, now.excess).loss * true.count).sum()


def stepped(work: Relaxation, x: Tensor, latents: Latents, learning_rate: float) -> Tensor:
    """y after a step of gradient descent."""
    y = latents.y.clone().requires_grad_()
    optimizer = torch.optim.SGD([y], lr=learning_rate)
    loss_of(work, x, replace(latents, y=y)).backward()
    work.step(replace(latents, y=y), optimizer)
    return y.detach()


def test_an_element_leaves_an_integer_the_way_the_loss_falls_and_only_there(small_codec: ScaleHyperpriorCodec) -> None:
    torch.manual_seed(0)
    near, rate = 0.01, 1e-5
    found = small_codec.analyse(torch.rand(1, 3, 64, 64))
    latents = Latents(found.y.round(), found.z)
    x = small_codec.synthesise(latents.y) + 0.02 * torch.randn(1, 3, 64, 64)  # a small loss, for precise differences

    def work() -> Relaxation:
        return at_work(small_codec, x, latents.y, probes=64)

    moved = (stepped(work(), x, latents, rate) - latents.y).flatten() / rate
    at_rest, rested = float(loss_of(work(), x, latents)), 0
    tried = range(0, latents.y.numel(), 7)
    for i in tried:
        slopes = []
        for step in (near, -near):
            y = latents.y.clone()
            y.view(-1)[i] += step
            slopes.append((float(loss_of(work(), x, Latents(y, latents.z))) - at_rest) / near)
        steepest, sign = min((slopes[0], 1), (slopes[1], -1))
        rested += steepest > 0
        assert float(moved[i]) == pytest.approx(sign * max(0.0, -steepest), rel=0.1, abs=0.3)
    assert 3 < rested < len(tried) - 3


def test_no_element_crosses_an_integer_in_a_step(any_codec: Codec) -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    latents = any_codec.analyse(x)
    offsets: list[Tensor] = []

    def remember(value: Tensor, offset: Tensor | None) -> Tensor:
        offsets.append(torch.zeros_like(value) if offset is None else offset)
        return value

    any_codec.quantise(latents, remember, hard_round)
    after = stepped(at_work(any_codec, x, latents.y), x, latents, learning_rate=1e4)
    before, now = latents.y - offsets[0], after - offsets[0]
    near = 1e-3  # z is not rounded quite as hard in the step
    assert (now > before.floor() - near).all() and (now < before.ceil() + near).all()
    assert float(((now - now.round()).abs() < near).float().mean()) > 0.9  # so large a step would cross, and stops


def test_elements_at_an_integer_follow_the_means_and_so_does_the_gradient_of_z() -> None:
    codec = random_codec(MeanScaleHyperpriorCodec)
    h_s = nn.ConvTranspose2d(8, 24, 8, stride=4, padding=2).requires_grad_(False)
    h_s.weight.mul_(2)  # means depend on z
    assert h_s.bias is not None
    h_s.bias[:12] += 2  # scales are above their bound
    codec.net.h_s = h_s
    found = codec.analyse(torch.rand(1, 3, 64, 64))
    x = codec.synthesise(found.y) + 0.02 * torch.randn(1, 3, 64, 64)
    assert found.z is not None
    y, z = (value.clone().requires_grad_() for value in (found.y, found.z))
    work, optimizer = at_work(codec, x, y), torch.optim.SGD([y], lr=1e4)

    def loss(z: Tensor) -> Tensor:
        return loss_of(work, x, Latents(y, z), tau=1.0)

    for _ in range(2):  # all of y is at an integer then
        optimizer.zero_grad()
        loss(z).backward()
        work.step(Latents(y, z), optimizer)
    (gradient,) = torch.autograd.grad(loss(z), z)
    slope = float(gradient.norm())
    near = 1e-2 * gradient / slope
    with torch.no_grad():
        assert float(loss(z + near) - loss(z - near)) / 2e-2 == pytest.approx(slope, rel=0.05)


def test_pixels_of_the_padding_add_no_distortion(small_codec: ScaleHyperpriorCodec) -> None:
    x = torch.rand(1, 3, 64, 256)
    work = at_work(small_codec, x, small_codec.analyse(x).y, [(64, 64)])
    assert isinstance(work, Expectation)
    assert work.curvature[..., :4].min() > 0
    assert work.curvature[..., 10:].abs().max() == 0


def test_a_batch_is_its_images_one_by_one(any_codec: Codec) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    settings = replace(FAST, steps=4, evaluate_every=2, adapt_prior=True)
    together = refine(any_codec, x, [(64, 64)] * 2, FIXED, settings, [5, 6])
    for i in range(2):
        alone = refine(any_codec, x[i : i + 1], [(64, 64)], FIXED, settings, [5 + i])
        torch.testing.assert_close(alone.curves[:, 0, 0], together.curves[:, 0, i], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(alone.refined_loss[0], together.refined_loss[i], rtol=1e-2, atol=1e-3)


def test_it_needs_fewer_steps_than_sampling(embedded: LoadedCodec, photograph: Tensor) -> None:
    x = pad(to_float(photograph[:, 100:228, 200:328]), 64)[None]
    sampled = replace(FAST, rounding=SigmoidScaledLogitRounding(1.33), learning_rate=2e-2, betas=(0.9, 0.999))
    losses = [float(refine(embedded.codec, x, [(128, 128)], FIXED, s, [0]).refined_loss) for s in (FAST, sampled)]
    assert losses[0] < losses[1]


def test_channels_of_z_that_say_nothing_stay(embedded: LoadedCodec, photograph: Tensor) -> None:
    x = pad(to_float(photograph[:, 100:228, 200:328]), 64)[None]
    settings = replace(FAST, steps=3, evaluate_every=1, learning_rate_z=0.3, select="last")
    found = refine(embedded.codec, x, [(128, 128)], FIXED, settings, [0])
    moved = (found.latents.z - embedded.codec.analyse(x).z).abs().amax((0, 2, 3))
    silent = embedded.codec.bits_of_z(found.base.z_hat).mean((0, 2, 3)) <= 0.01
    assert silent.sum() > 64  # most of them, in this model
    assert moved[silent].max() < 1e-6 and moved[~silent].min() > 0.1


def test_probes_are_needed() -> None:
    with pytest.raises(ValueError, match="probes"):
        ExpectedRounding(probes=0)


def test_the_curvature_at_the_edge_of_the_image_is_not_thinned_by_padding(small_codec: ScaleHyperpriorCodec) -> None:
    x = torch.rand(1, 3, 64, 256)
    work = at_work(small_codec, x, small_codec.analyse(x).y, [(64, 128)], probes=64)
    whole = at_work(small_codec, x, small_codec.analyse(x).y, probes=64)
    assert isinstance(work, Expectation) and isinstance(whole, Expectation)
    assert work.curvature[..., :6].sum() == pytest.approx(float(2 * whole.curvature[..., :6].sum()), rel=0.1)  # half the pixels


@pytest.mark.parametrize(("model", "at_most"), [("embedded", 0.99), ("one_rate", 0.97)])
def test_padding_does_not_cost_what_the_encoder_spends_on_it(
    model: str, at_most: float, request: pytest.FixtureRequest, photograph: Tensor
) -> None:
    """One row and column more than a multiple of the stride: most of what is coded stands for nothing."""
    codec = request.getfixturevalue(model).codec
    x = pad(to_float(photograph[:, 100:229, 200:329]), 64)[None]
    start = codec.analyse(x)
    found = refine(codec, x, [(129, 129)], FIXED, replace(FAST, steps=10), [0])
    plain = refine(codec, x, [(129, 129)], FIXED, replace(FAST, steps=10), [0], start=start)
    assert torch.equal(found.base.y_hat, plain.base.y_hat)  # the base is the encoder's
    assert float(found.refined_loss) < at_most * float(plain.refined_loss)
