from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sga.codecs import Codec
from sga.images import pad, to_float
from sga.loading import LoadedCodec
from sga.rate_distortion import Objective, RateDistortion
from sga.refinement.refiner import refine
from sga.refinement.result import CURVES, Progress, RefinementResult
from sga.refinement.rounding import (
    AtanhRounding,
    CosineRounding,
    LinearRounding,
    Rounding,
    SigmoidScaledLogitRounding,
    StraightThrough,
    UniformNoise,
    hard_round,
)
from sga.refinement.schedules import HoldThenCosine, ScaledTemperature
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import Controller, FixedLambda

OBJECTIVE = Objective(0.013)
FIXED = FixedLambda(OBJECTIVE)
SETTINGS = RefinerSettings(
    rounding=SigmoidScaledLogitRounding(1.33),
    temperature=ScaledTemperature(),
    steps=20,
    learning_rate=2e-2,
    learning_rate_z=6.7e-3,
    learning_rate_factor=HoldThenCosine(),
    evaluate_every=10,
    precision="fp32",
)


@pytest.fixture(scope="module")
def crops(photograph: Tensor) -> Tensor:
    """Two crops of 64 x 64, fp32 [2, 3, 64, 64]."""
    x = to_float(photograph)
    return torch.stack([x[:, 100:164, 200:264], x[:, 300:364, 100:164]])


def run(loaded: LoadedCodec, x: Tensor, settings: RefinerSettings = SETTINGS, **changes: object) -> RefinementResult:
    sizes = [(x.shape[-2], x.shape[-1])] * len(x)
    settings = replace(settings, **changes)  # type: ignore[arg-type]
    return refine(loaded.codec, x, sizes, FixedLambda(OBJECTIVE, settings.select), settings, list(range(len(x))))


def test_gradients_reach_the_latents_and_no_weight(embedded: LoadedCodec, crops: Tensor) -> None:
    result = run(embedded, crops, steps=2, select="last", learning_rate=0.6, learning_rate_z=0.6)
    assert not torch.equal(result.refined.y_hat, result.base.y_hat)
    assert result.refined.z_hat is not None and result.base.z_hat is not None
    assert not torch.equal(result.refined.z_hat, result.base.z_hat)
    assert all(parameter.grad is None for parameter in embedded.codec.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "rounding",
    [SigmoidScaledLogitRounding(1.33), AtanhRounding(), LinearRounding(), CosineRounding()],
    ids=lambda r: type(r).__name__,
)
def test_refining_lowers_the_true_loss(rounding: Rounding, precision: str, one_rate: LoadedCodec, crops: Tensor) -> None:
    result = run(one_rate, crops[:1], rounding=rounding, precision=precision, steps=40)
    assert (result.refined_loss < 0.985 * result.base_loss).all()


@pytest.mark.parametrize("rounding", [StraightThrough(), UniformNoise()], ids=lambda r: type(r).__name__)
def test_baselines_lower_the_true_loss(rounding: Rounding, one_rate: LoadedCodec, crops: Tensor) -> None:
    result = run(one_rate, crops[:1], rounding=rounding, steps=40, learning_rate=5e-3, learning_rate_z=5e-3, select="last")
    assert (result.refined_loss < result.base_loss).all()


def test_best_is_the_least_of_the_evaluations_and_last_the_last(embedded: LoadedCodec, crops: Tensor) -> None:
    wild: dict[str, Any] = {"learning_rate": 2.0, "learning_rate_z": 2.0}  # makes everything worse
    best = run(embedded, crops, **wild)
    torch.testing.assert_close(best.refined_loss, best.evaluations[:, 0].min(0).values)
    assert best.best_step.tolist() == [0, 0]
    assert torch.equal(best.refined.y_hat, best.base.y_hat)
    last = run(embedded, crops, select="last", **wild)
    assert last.best_step.tolist() == [20, 20]
    assert (last.refined_loss > last.base_loss).all()


def test_a_batch_gives_each_image_what_it_gets_alone(embedded: LoadedCodec, crops: Tensor) -> None:
    together = run(embedded, crops)
    for i in range(2):
        alone = refine(embedded.codec, crops[i : i + 1], [(64, 64)], FIXED, SETTINGS, [i])
        torch.testing.assert_close(together.refined_loss[i : i + 1], alone.refined_loss, rtol=2e-3, atol=0)
        torch.testing.assert_close(together.curves[..., i : i + 1], alone.curves, rtol=5e-3, atol=1e-3)


def test_a_seed_repeats_a_run_to_the_bit(embedded: LoadedCodec, crops: Tensor) -> None:
    first, second = run(embedded, crops[:1]), run(embedded, crops[:1])
    assert torch.equal(first.refined.y_hat, second.refined.y_hat)
    assert torch.equal(first.curves, second.curves)
    other = refine(embedded.codec, crops[:1], [(64, 64)], FIXED, SETTINGS, [99])
    assert not torch.equal(first.curves, other.curves)


def test_the_bits_of_all_latents_count_and_the_distortion_of_true_pixels(embedded: LoadedCodec, crops: Tensor) -> None:
    x = pad(crops[:1, :, :33, :50], 64)
    settings = replace(SETTINGS, steps=0)
    result = refine(embedded.codec, x, [(33, 50)], FIXED, settings, [0])
    bits = embedded.codec.bits(result.base).total
    torch.testing.assert_close(result.evaluations[0, 1], bits / (33 * 50))
    x_hat = embedded.codec.synthesise(embedded.codec.dequantise(result.base)).clamp(0, 1).mul(255).round().div(255)[..., :33, :50]
    mse = (x_hat - x[..., :33, :50]).square().mean()
    torch.testing.assert_close(result.evaluations[0, 2, 0], -10 * mse.log10(), rtol=1e-3, atol=0)


def test_no_steps_leave_the_latents_as_they_were(embedded: LoadedCodec, crops: Tensor) -> None:
    result = run(embedded, crops, steps=0)
    assert torch.equal(result.refined.y_hat, result.base.y_hat)
    assert result.curves.shape == (0, len(CURVES), 2) and result.evaluated_steps == [0]


def test_another_lambda_moves_rate_and_distortion(embedded: LoadedCodec, crops: Tensor) -> None:
    low, high = (
        refine(embedded.codec, crops[:1], [(64, 64)], FixedLambda(Objective(lmbda)), SETTINGS, [0]).evaluations[-1, :, 0]
        for lmbda in (0.004, 0.05)
    )
    assert low[1] < high[1] and low[2] < high[2]


def test_curves_and_evaluations_have_their_places(embedded: LoadedCodec, crops: Tensor) -> None:
    heard: list[tuple[int, int, list[float]]] = []

    def listener(progress: Progress) -> None:
        heard.append((len(progress.curves), progress.evaluated_steps[-1], progress.best_loss.tolist()))

    result = refine(embedded.codec, crops, [(64, 64)] * 2, FIXED, replace(SETTINGS, steps=25), [0, 1], listener)
    assert result.evaluated_steps == [0, 10, 20, 25] and [step for step, _, _ in heard] == [10, 20, 25]
    assert [step for _, step, _ in heard] == [10, 20, 25]
    for n, (_, _, best) in enumerate(heard, start=2):
        assert best == result.evaluations[:n, 0].amin(0).tolist()
    assert result.evaluations.shape == (4, 3, 2)
    assert result.curves.shape == (25, len(CURVES), 2) and result.curves.isfinite().all()
    assert result.curves[0, CURVES.index("tau")].tolist() == [1.0, 1.0]
    loss, bpp_y, bpp_z = (result.curves[:, CURVES.index(name)] for name in ("loss", "bpp_y", "bpp_z"))
    assert (loss > bpp_y + bpp_z).all()


def test_y_starts_at_0_where_it_stands_for_padding_alone(any_codec: Codec) -> None:
    x = torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    still = replace(SETTINGS, steps=1, learning_rate=1e-9, select="last")
    found = refine(any_codec, x, [(163, 170), (192, 192)], FixedLambda(OBJECTIVE, "last"), still, [0, 1])
    encoded = any_codec.analyse(x)
    expected = encoded.y.clone()
    expected[0, :, 11:] = expected[0, :, :, 12:] = 0  # columns 170 to 175 and 8 more are needed at its edge
    torch.testing.assert_close(found.latents.y, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.base.y_hat, any_codec.quantise(encoded, hard_round, hard_round).y_hat, rtol=1e-3, atol=1e-3)


class Stepwise(Controller):
    """Another loss after each hard evaluation, of which the latents after 10 steps are the best."""

    def __init__(self) -> None:
        self.objective = Objective(0.01)
        self.heard: list[tuple[str, float]] = []

    def score(self, found: RateDistortion, progress: float) -> Tensor:
        self.heard.append(("score", progress))
        return torch.full_like(found.loss, abs(progress - 0.5))

    def observe(self, found: RateDistortion, progress: float) -> Objective:
        self.heard.append(("observe", progress))
        return Objective(0.01 + 0.01 * progress)


def test_a_controller_says_the_loss_and_the_best(embedded: LoadedCodec, crops: Tensor) -> None:
    controller = Stepwise()
    found = refine(embedded.codec, crops, [(64, 64)] * 2, controller, SETTINGS, [0, 1])
    assert controller.heard == [(what, progress) for progress in (0.0, 0.5, 1.0) for what in ("score", "observe")]
    assert found.best_step.tolist() == [10, 10]
    assert found.lmbda.tolist() == pytest.approx([0.01, 0.01])  # of the loss by which they were evaluated
    loss, bpp, psnr_db = found.evaluations[:, :, 0].unbind(1)
    for n, lmbda in enumerate((0.01, 0.01, 0.015)):
        assert float(loss[n]) == pytest.approx(float(bpp[n]) + lmbda * 255**2 * 10 ** (-float(psnr_db[n]) / 10), rel=1e-4)
