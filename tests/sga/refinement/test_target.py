from __future__ import annotations

import math

import pytest
import torch

from sga.rate_distortion import Objective, RateDistortion
from sga.refinement.target import LIMIT, FileSize, FixedLambda, LambdaController, Target

OBJECTIVE = Objective(0.013)


def of_lambda(objective: Objective) -> RateDistortion:
    """What images of different slopes would have at a lambda, without any delay."""
    lmbda = torch.as_tensor(objective.lmbda)
    bpp = 0.6 * (lmbda / 0.013) ** torch.tensor([0.2, 0.25, 0.4])
    mse = 1e-3 * (lmbda / 0.013) ** -torch.tensor([0.2, 0.25, 0.4])
    return RateDistortion(bpp, torch.zeros(3), mse, objective.loss(bpp, mse))


@pytest.mark.parametrize("target", [Target("bpp", 0.45), Target("bpp", 0.8), Target("psnr_db", 31.0), Target("psnr_db", 29.0)])
def test_lambda_moves_to_where_it_belongs_and_then_rests(target: Target) -> None:
    size = FileSize(torch.tensor([1.0, 1.02, 0.99]), torch.full((3,), 0.01))
    controller = LambdaController(target, OBJECTIVE, size)
    objective = controller.objective
    for step in range(21):
        objective = controller.observe(of_lambda(objective), step / 20)
        if step == 14:
            rest = objective
    assert objective is rest
    found = of_lambda(objective)
    assert (target.error(size.bpp(found.bpp), found.psnr_db).abs() < target.tolerance).all()
    limited = LambdaController(Target("bpp", 1e-6), OBJECTIVE, size)
    for step in range(15):
        objective = limited.observe(of_lambda(limited.objective), step / 20)
    assert (torch.as_tensor(objective.lmbda).log() >= torch.tensor(0.013).log() - LIMIT - 1e-4).all()


def test_the_best_has_the_size_and_then_the_least_distortion() -> None:
    size = FileSize(torch.ones(5), torch.zeros(5))
    controller = LambdaController(Target("bpp", 0.5), OBJECTIVE, size)
    bpp, mse = torch.tensor([0.501, 0.5, 0.52, 0.48, 0.3]), torch.tensor([1e-3, 2e-3, 1e-4, 1e-4, 1e-4])
    found = RateDistortion(bpp, torch.zeros(5), mse, OBJECTIVE.loss(bpp, mse))
    score = controller.score(found, 1.0)
    assert score.argsort().tolist() == [0, 1, 2, 3, 4]
    assert (controller.score(found, 0.5) > score.max()).all()  # lambda still moves: another trade than that of the end


def hard_evaluation(*losses: float) -> RateDistortion:
    loss = torch.tensor(losses)
    return RateDistortion(loss / 2, torch.zeros_like(loss), torch.full_like(loss, 1e-3), loss)


def test_a_fixed_lambda_ranks_by_the_loss_or_by_the_step() -> None:
    found = hard_evaluation(1.5, 0.5, 2.5)
    best, last = FixedLambda(OBJECTIVE), FixedLambda(OBJECTIVE, "last")
    for progress in (0.0, 0.5, 1.0):
        assert torch.equal(best.score(found, progress), found.loss)
    # The least is the best: later latents, however bad they are.
    assert (last.score(hard_evaluation(9.0, 9.0, 9.0), 0.5) < last.score(found, 0.25)).all()
    assert (last.score(found, 0.0) > last.score(hard_evaluation(9.0, 9.0, 9.0), 0.1)).all()
    assert last.score(found, 0.5).shape == found.loss.shape


def test_a_fixed_lambda_stays_whatever_is_found() -> None:
    for select in ("best", "last"):
        controller = FixedLambda(OBJECTIVE, select)
        for progress in (0.0, 0.5, 1.0):
            assert controller.observe(hard_evaluation(1.0, 5.0), progress) is controller.objective is OBJECTIVE


def test_a_target_says_how_far_a_file_is_from_it() -> None:
    size, quality = Target("bpp", 0.5), Target("psnr_db", 30.0)
    assert size.error_of_file(0.4, None) == pytest.approx(math.log(0.5 / 0.4))
    assert quality.error_of_file(0.4, 29.0) == pytest.approx(math.log(10) / 10)  # log of the ratio of two MSEs
    assert quality.error_of_file(0.4, None) == -math.inf  # a perfect image
    assert size.reached(0.5 / 1.009, 10.0) and not size.reached(0.5 / 1.011, 10.0)
    assert quality.reached(0.4, 30.049) and not quality.reached(0.4, 30.051) and not quality.reached(0.4, None)


def test_one_target_is_given_at_most() -> None:
    assert Target.of(None, None) is None
    assert Target.of(0.5, None) == Target("bpp", 0.5) and Target.of(None, 31.0) == Target("psnr_db", 31.0)
    with pytest.raises(ValueError, match="target_bpp and target_psnr exclude each other"):
        Target.of(0.5, 31.0)
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="target_bpp must be above 0"):
            Target("bpp", value)
        with pytest.raises(ValueError, match="target_psnr must be above 0"):
            Target("psnr_db", value)
