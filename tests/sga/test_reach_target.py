"""Files of a size or a quality that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sga.images import to_float
from sga.loading import LoadedCodec, load_codec
from sga.photograph import refine_photograph
from sga.rate_distortion import Objective
from sga.reach_target import TargetedRefinement, extra_steps
from sga.refinement.presets import preset
from sga.refinement.rounding import hard_round
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import Target

ROOT = Path(__file__).parents[2]
OBJECTIVE = Objective(0.013)
STEPS = 30


def settings(steps: int = STEPS) -> RefinerSettings:
    return replace(preset(steps=steps), precision="fp32")


def test_the_factorised_prior_lands_too(crop: Tensor) -> None:
    (checkpoint,) = (ROOT / "checkpoints").glob("factorised*.safetensors")
    loaded = load_codec(checkpoint)
    refined = refine_photograph(loaded, crop, OBJECTIVE, settings(), Target("psnr_db", 30.0))
    assert refined.quality.psnr_db == pytest.approx(30.0, abs=0.05)


def test_steps_are_bounded_and_best_step_is_where_the_latents_are_from(embedded: LoadedCodec, crop: Tensor) -> None:
    refinement, x = TargetedRefinement(embedded, OBJECTIVE, settings(steps=4), Target("bpp", 0.05)), to_float(crop)[None]
    result = refinement.reach(x, crop, refinement.begin(x, [crop], [0]), 0)
    assert len(result.curves) == 4 + extra_steps(4)
    assert result.evaluated_steps[-1] == len(result.curves) and result.evaluated_steps == sorted(set(result.evaluated_steps))
    at = result.evaluated_steps.index(int(result.best_step))
    rounded = replace(embedded.codec.quantise(result.latents, hard_round, hard_round), adaptations=result.refined.adaptations)
    bits = embedded.codec.bits(rounded).total
    torch.testing.assert_close(result.evaluations[at, 1], bits / 64**2, rtol=1e-4, atol=0)


def test_a_batch_gives_each_image_what_it_gets_alone(embedded: LoadedCodec, photograph: Tensor) -> None:
    originals = [photograph[:, 100:164, 200:264], photograph[:, :64, :64]]
    x = torch.stack([to_float(image) for image in originals])
    refinement = TargetedRefinement(embedded, OBJECTIVE, settings(steps=20), Target("psnr_db", 31.0))
    together = refinement.begin(x, originals, [0, 1])
    assert (together.lmbda.log() - together.lmbda.log().mean()).abs().min() > 0.1  # each has its own
    for i in range(2):
        alone = refinement.begin(x[i : i + 1], originals[i : i + 1], [i])
        torch.testing.assert_close(together.lmbda[i : i + 1], alone.lmbda, rtol=0.02, atol=0)
        torch.testing.assert_close(together.evaluations[..., i : i + 1], alone.evaluations, rtol=0.01, atol=0)


def test_a_seed_repeats_a_target_to_the_bit(embedded: LoadedCodec, crop: Tensor) -> None:
    six = settings(steps=6)
    first, second = (refine_photograph(embedded, crop, OBJECTIVE, six, Target("bpp", 0.8), seed=3) for _ in range(2))
    assert first.file == second.file and torch.equal(first.curves, second.curves)


def test_the_gain_of_a_target_is_that_of_the_file_after_the_steps(embedded: LoadedCodec, photograph: Tensor) -> None:
    found = refine_photograph(
        embedded, photograph[:, 100:228, 200:328], Objective(0.013), preset("instant"), Target("psnr_db", 36.0)
    )
    assert found.quality.psnr_db == pytest.approx(36.0, abs=0.05) and len(found.curves) <= 32
    assert found.base.quality.psnr_db is not None and 35.0 < found.base.quality.psnr_db < 35.9  # its file has that gain too
