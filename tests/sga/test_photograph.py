from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sga import photograph as module
from sga.bitstream import BitstreamError, decode_image
from sga.codecs import Codec
from sga.codecs.checkpoint import model_hash
from sga.codecs.latents import Bits
from sga.images import pad, to_float
from sga.loading import LoadedCodec, load_codec
from sga.photograph import RefinedPhotograph, encode_photograph, refine_photograph, refine_photographs, seed_of
from sga.rate_distortion import Objective, RateDistortion
from sga.reach_target import extra_steps
from sga.refinement import refiner
from sga.refinement.presets import preset
from sga.refinement.refiner import refine
from sga.refinement.result import CURVES, EVALUATED, Progress, RefinementResult
from sga.refinement.rounding import SigmoidScaledLogitRounding, hard_round
from sga.refinement.schedules import HoldThenCosine, ScaledTemperature
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import FixedLambda, Target

OBJECTIVE = Objective(0.013)
SETTINGS = RefinerSettings(
    rounding=SigmoidScaledLogitRounding(1.33),
    temperature=ScaledTemperature(),
    steps=10,
    learning_rate=2e-2,
    learning_rate_factor=HoldThenCosine(),
    evaluate_every=5,
    precision="fp32",
)
WILD = replace(SETTINGS, steps=20, learning_rate=2.0)
"""Makes everything worse."""


@pytest.fixture
def odd(photograph: Tensor) -> Tensor:
    """uint8 [3, 60, 50], of the padded size of ``crop``."""
    return photograph[:, 300:360, 100:150]


def losses(refined: RefinedPhotograph) -> tuple[float, float]:
    """R-D losses of the base's file and of the refined one."""
    base, after = (coded.quality.loss(refined.objective) for coded in (refined.base, refined.refined))
    assert base is not None and after is not None
    return base, after


def bpp_by_densities(codec: Codec, image: Tensor) -> float:
    """Bits per pixel of the encoder's latents, written a second time."""
    x = pad(to_float(image), codec.stride)[None]
    with torch.no_grad():
        bits = codec.bits(codec.quantise(codec.analyse(x), hard_round, hard_round)).total
    return float(bits) / (image.shape[-2] * image.shape[-1])


def test_the_seed_is_of_the_pixels_and_the_number_alone() -> None:
    image = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    pixels = bytes(range(48))
    assert seed_of(image, 0) == zlib.crc32(b"0" + pixels) == 3616338135
    assert seed_of(image, 1) == zlib.crc32(b"1" + pixels) != seed_of(image, 0)
    within = torch.zeros(3, 9, 9, dtype=torch.uint8)
    within[:, 2:6, 3:7] = image
    channels_last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for same in (within[:, 2:6, 3:7], channels_last, image.clone()):
        assert seed_of(same, 7) == seed_of(image, 7)
    other = image.clone()
    other[2, 3, 3] += 1
    assert seed_of(other, 0) != seed_of(image, 0)


def test_a_photograph_becomes_a_file_that_is_better_than_its_base(one_rate: LoadedCodec, odd: Tensor) -> None:
    refined = refine_photograph(one_rate, odd, OBJECTIVE, SETTINGS)
    before, after = losses(refined)
    assert after < 0.98 * before
    assert refined.original is odd and refined.objective == OBJECTIVE
    for coded in (refined.base, refined.refined):
        assert torch.equal(decode_image(one_rate, coded.file), coded.image) and coded.image.shape == odd.shape
        assert coded.quality.bpp == pytest.approx(8 * len(coded.file) / (60 * 50))
        mse = (coded.image.double() - odd.double()).square().mean()
        assert coded.quality.psnr_db == pytest.approx(float(10 * torch.log10(255**2 / mse)))
        assert coded.quality.loss(OBJECTIVE) == pytest.approx(coded.quality.bpp + 0.013 * float(mse), rel=1e-5)
    assert refined.file == refined.refined.file != refined.base.file
    assert torch.equal(refined.image, refined.refined.image) and refined.quality == refined.refined.quality
    assert refined.curves.shape == (10, len(CURVES)) and refined.evaluations.shape == (3, len(EVALUATED))
    assert refined.evaluated_steps == [0, 5, 10] and refined.best_step in (5, 10) and refined.seconds > 0
    at = refined.evaluated_steps.index(refined.best_step)
    assert refined.bpp_estimated == pytest.approx(float(refined.evaluations[at, EVALUATED.index("bpp")]))
    # The estimate is of the file: the header apart, the two differ by the bytes with which the coder ends a string.
    assert 8 * len(refined.file) == pytest.approx(refined.bpp_estimated * 60 * 50, rel=0.05, abs=8 * 32)


def test_the_number_of_the_run_and_no_other_thing_makes_another_file(embedded: LoadedCodec, crop: Tensor) -> None:
    first = refine_photograph(embedded, crop, OBJECTIVE, SETTINGS, seed=3)
    again = refine_photograph(embedded, crop.clone(), OBJECTIVE, SETTINGS, seed=3)
    assert first.file == again.file and torch.equal(first.curves, again.curves)
    other = refine_photograph(embedded, crop, OBJECTIVE, SETTINGS, seed=4)
    assert not torch.equal(first.curves, other.curves)


def test_the_caller_may_have_no_gradients_and_an_arithmetic_of_its_own(embedded: LoadedCodec, crop: Tensor) -> None:
    plain = refine_photograph(embedded, crop, OBJECTIVE, SETTINGS).file
    with torch.inference_mode():
        assert refine_photograph(embedded, crop, OBJECTIVE, SETTINGS).file == plain
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert refine_photograph(embedded, crop, OBJECTIVE, SETTINGS).file == plain


@pytest.mark.parametrize("target", [None, Target("bpp", 0.9)], ids=["lambda", "target"])
def test_no_weight_changes_or_has_a_gradient(target: Target | None, crop: Tensor) -> None:
    loaded = load_codec("embedded")
    for parameter in loaded.codec.parameters():  # a caller may have left them so
        parameter.requires_grad_()
    steps = replace(SETTINGS, steps=2, evaluate_every=1)
    refine_photograph(loaded, crop, OBJECTIVE, steps, target)
    refine_photographs(loaded, [crop, crop], OBJECTIVE, steps, target)
    assert all(parameter.grad is None for parameter in loaded.codec.parameters())
    assert model_hash(loaded.codec) == loaded.model_hash


def test_a_batch_gives_the_files_of_its_photographs_one_by_one(embedded: LoadedCodec, crop: Tensor, odd: Tensor) -> None:
    together = refine_photographs(embedded, [odd, crop], OBJECTIVE, SETTINGS, seed=3)
    assert len(together) == 2
    for image, found in zip((odd, crop), together, strict=True):
        alone = refine_photograph(embedded, image, OBJECTIVE, SETTINGS, seed=3)
        assert isinstance(found, RefinedPhotograph) and found.original is image
        # Float noise may round an element elsewhere; another seed changes the curves by some percent, and the file.
        torch.testing.assert_close(found.curves, alone.curves, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.evaluations, alone.evaluations, rtol=2e-3, atol=0)
        assert found.evaluated_steps == alone.evaluated_steps and found.best_step == alone.best_step
        assert found.base.file == alone.base.file and len(found.file) == pytest.approx(len(alone.file), rel=0.005)
        assert ((found.image.int() - alone.image.int()).abs() > 1).float().mean() < 0.01


def test_no_photographs_are_no_files(embedded: LoadedCodec) -> None:
    assert refine_photographs(embedded, [], OBJECTIVE, SETTINGS) == []


@pytest.mark.parametrize("failing", [0, 1])
def test_a_photograph_that_fails_leaves_the_others_alone(failing: int, embedded: LoadedCodec, photograph: Tensor) -> None:
    images = [photograph[:, :170, :180], photograph[:, 100:270, 100:280]]
    images[failing] = images[failing][:, :150]  # of the same padded size, and too small for MS-SSIM
    objective, heard = Objective(16.64, "ms_ssim"), []

    def listener(indices: Any, progress: Progress) -> None:
        heard.append((list(indices), progress.evaluated_steps))

    settings = replace(SETTINGS, steps=2, evaluate_every=1)
    outcomes = refine_photographs(embedded, images, objective, settings, listener=listener)
    error, fine = outcomes[failing], outcomes[1 - failing]
    assert isinstance(error, ValueError) and "at least 161 pixels, here they are 180 x 150" in str(error)
    assert isinstance(fine, RefinedPhotograph) and fine.original is images[1 - failing]
    assert fine.quality.ms_ssim is not None
    assert fine.quality.loss(objective) == pytest.approx(fine.quality.bpp + 16.64 * (1 - fine.quality.ms_ssim), rel=1e-5)
    assert heard == [([1 - failing], [0, 1]), ([1 - failing], [0, 1, 2])]
    (alone,) = refine_photographs(embedded, [images[failing]], objective, settings)
    assert isinstance(alone, ValueError)
    with pytest.raises(ValueError, match="at least 161 pixels"):
        refine_photograph(embedded, images[failing], objective, settings)


def test_trouble_with_the_memory_for_all_leaves_each_to_be_refined_alone(
    embedded: LoadedCodec, crop: Tensor, odd: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def refine_with_little_memory(codec: Codec, x: Tensor, *rest: Any) -> RefinementResult:
        sizes.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return refine(codec, x, *rest)

    expected = [refine_photograph(embedded, image, OBJECTIVE, SETTINGS).file for image in (crop, odd)]
    monkeypatch.setattr(module, "refine", refine_with_little_memory)
    outcomes = refine_photographs(embedded, [crop, odd], OBJECTIVE, SETTINGS)
    assert sizes == [2, 1, 1]
    assert [outcome.file for outcome in outcomes if isinstance(outcome, RefinedPhotograph)] == expected


def test_a_listener_hears_the_images_of_its_batch(embedded: LoadedCodec, crop: Tensor, odd: Tensor) -> None:
    heard: list[tuple[list[int], int]] = []

    def listener(indices: Any, progress: Progress) -> None:
        assert progress.curves.shape[-1] == len(indices) and len(progress.curves) == progress.evaluated_steps[-1]
        heard.append((list(indices), progress.evaluated_steps[-1]))

    refine_photographs(embedded, [crop, odd], OBJECTIVE, SETTINGS, listener=listener)
    assert heard == [([0, 1], 5), ([0, 1], 10)]
    steps: list[int] = []
    refine_photograph(embedded, crop, OBJECTIVE, SETTINGS, listener=lambda progress: steps.append(progress.evaluated_steps[-1]))
    assert steps == [5, 10]


def test_latents_that_only_get_worse_leave_the_base(embedded: LoadedCodec, crop: Tensor) -> None:
    best = refine_photograph(embedded, crop, OBJECTIVE, WILD)
    assert best.file == best.base.file and best.best_step == 0
    assert best.bpp_estimated == pytest.approx(bpp_by_densities(embedded.codec, crop))
    last = refine_photograph(embedded, crop, OBJECTIVE, replace(WILD, select="last"))
    before, after = losses(last)
    assert after > before and last.best_step == 20
    assert last.bpp_estimated == pytest.approx(float(last.evaluations[-1, EVALUATED.index("bpp")]))


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_file_that_is_worse_than_its_estimate_gives_way_to_the_base(
    select: Any, embedded: LoadedCodec, crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last latents for the best: as coded bits that are more than those of the densities."""

    def refine_to_the_last(codec: Codec, x: Tensor, sizes: Any, controller: FixedLambda, *rest: Any) -> RefinementResult:
        assert controller.objective == OBJECTIVE and controller.select == select
        return refine(codec, x, sizes, FixedLambda(OBJECTIVE, "last"), *rest)

    monkeypatch.setattr(module, "refine", refine_to_the_last)
    found = refine_photograph(embedded, crop, OBJECTIVE, replace(WILD, select=select))
    before, after = losses(found)
    if select == "best":
        assert found.refined is found.base and found.best_step == 0
        assert found.bpp_estimated == pytest.approx(bpp_by_densities(embedded.codec, crop))
    else:
        assert after > before and found.best_step == 20


def test_no_steps_write_the_base(embedded: LoadedCodec, odd: Tensor) -> None:
    found = refine_photograph(embedded, odd, OBJECTIVE, replace(SETTINGS, steps=0))
    coded, bpp_estimated = encode_photograph(embedded, odd)
    assert found.file == found.base.file == coded.file
    assert found.bpp_estimated == pytest.approx(bpp_estimated) == pytest.approx(bpp_by_densities(embedded.codec, odd))
    assert found.curves.shape == (0, len(CURVES)) and found.evaluated_steps == [0]


@pytest.mark.parametrize("start", [Objective(0.013), Objective(0.002)])
def test_with_a_target_the_loss_is_at_the_lambda_of_the_image(
    start: Objective, embedded: LoadedCodec, crop: Tensor, odd: Tensor
) -> None:
    target = Target("psnr_db", 31.0)
    # What the settings select has no say: the nearest file is written, though the base's loss may be less.
    settings = replace(SETTINGS, steps=12, select="best")
    outcomes = refine_photographs(embedded, [crop, odd], start, settings, target)
    lambdas = []
    for found in outcomes:
        assert isinstance(found, RefinedPhotograph)
        assert found.quality.psnr_db == pytest.approx(31.0, abs=0.05)
        assert isinstance(found.objective.lmbda, float) and found.objective.distortion == "mse"
        assert found.quality.psnr_db is not None
        mse = 10 ** (-found.quality.psnr_db / 10)
        expected = found.quality.bpp + found.objective.lmbda * 255**2 * mse
        assert found.quality.loss(found.objective) == pytest.approx(expected, rel=1e-5)
        assert found.best_step in found.evaluated_steps and len(found.curves) <= 12 + extra_steps(12)
        lambdas.append(found.objective.lmbda)
    assert lambdas[0] > 1.2 * lambdas[1] and start.lmbda not in lambdas


def test_a_target_that_is_not_reached_gives_the_nearest_file(embedded: LoadedCodec, crop: Tensor) -> None:
    found = refine_photograph(embedded, crop, OBJECTIVE, replace(SETTINGS, steps=2, evaluate_every=1), Target("bpp", 0.01))
    assert len(found.curves) == 2 + extra_steps(2)
    assert 0.01 < found.quality.bpp < found.base.quality.bpp
    assert float(found.objective.lmbda) < 0.013
    with pytest.raises(ValueError, match="a target needs at least one step"):
        refine_photograph(embedded, crop, OBJECTIVE, replace(SETTINGS, steps=0), Target("bpp", 0.5))


def test_what_cannot_be_a_file_is_refused(embedded: LoadedCodec, crop: Tensor) -> None:
    endless = torch.zeros(1, dtype=torch.uint8).expand(3, 1, 70_000)
    with pytest.raises(BitstreamError, match="absurd size 70000 x 1"):
        refine_photograph(embedded, endless, OBJECTIVE, SETTINGS)
    with pytest.raises(BitstreamError, match="absurd size 70000 x 1"):
        encode_photograph(embedded, endless)
    with pytest.raises(ValueError, match="diverged"):
        refine_photograph(embedded, crop, OBJECTIVE, replace(SETTINGS, steps=2, learning_rate=1e30, select="last"))


@pytest.mark.parametrize("step", [1, 3])
def test_a_loss_that_is_nan_at_a_step_fails_its_image_and_no_other(
    step: int, embedded: LoadedCodec, crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = refiner.rate_distortion, iter(range(100))

    def poisoned(x: Tensor, x_hat: Tensor, bits: Bits, *more: Any) -> RateDistortion:
        if len(more) == 3 and next(calls) == step - 1:  # a step's, which has an excess
            x_hat = x_hat * torch.tensor([1.0, torch.nan]).view(-1, 1, 1, 1)
        return original(x, x_hat, bits, *more)

    settings = replace(preset("fast", 3), evaluate_every=1)
    alone = refine_photograph(embedded, crop, OBJECTIVE, settings)
    monkeypatch.setattr(refiner, "rate_distortion", poisoned)
    sound, failed = refine_photographs(embedded, [crop, crop], OBJECTIVE, settings)
    assert isinstance(sound, RefinedPhotograph) and sound.quality.bpp == pytest.approx(alone.quality.bpp, rel=0.01)
    assert isinstance(failed, ValueError)
    assert str(failed).startswith(f"refinement diverged: its loss is not a finite number at step {step}; use a smaller learning")


def test_a_file_is_saved_whole_or_not_at_all(embedded: LoadedCodec, crop: Tensor, tmp_path: Path) -> None:
    found = refine_photograph(embedded, crop, OBJECTIVE, replace(SETTINGS, steps=0))
    found.save(str(tmp_path / "photo.bin"))
    assert (tmp_path / "photo.bin").read_bytes() == found.file
    with pytest.raises(OSError, match="No such file"):
        found.save(tmp_path / "missing/photo.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.bin"]
