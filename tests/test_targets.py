"""Files of a size or a quality that is asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import codec
import refine
from reports.curves import curves
from reports.runs import read_run
from sga.codecs.checkpoint import LoadedCodec, load_codec
from sga.coding import code_image
from sga.images import read_image, to_float, write_image
from sga.photograph import refine_photograph
from sga.quality import psnr_db
from sga.rate_distortion import Objective, RateDistortion
from sga.reach_target import TargetedRefinement, extra_steps
from sga.refinement.presets import preset
from sga.refinement.rounding import hard_round
from sga.refinement.settings import RefinerSettings
from sga.refinement.target import LIMIT, FileSize, LambdaController, Target

ROOT = Path(__file__).parents[1]
OBJECTIVE = Objective(0.013)
STEPS = 30


@pytest.fixture
def crop(photograph: Tensor) -> Tensor:
    return photograph[:, 100:164, 200:264]


@pytest.fixture
def photo(crop: Tensor, tmp_path: Path) -> Path:
    path = tmp_path / "photographs/photo.png"
    path.parent.mkdir()
    write_image(crop, path)
    return path


@pytest.fixture
def base_bpp(embedded: LoadedCodec, crop: Tensor) -> float:
    """Of the file of the encoder's latents."""
    with torch.no_grad():
        quantised = embedded.codec.quantise(embedded.codec.analyse(to_float(crop)[None]), hard_round)
    return code_image(embedded, quantised, crop).quality.bpp


def settings(steps: int = STEPS) -> RefinerSettings:
    return replace(preset(steps=steps), dtype=torch.float32)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_file_has_the_size_that_was_asked_for(
    factor: float, photo: Path, base_bpp: float, capsys: pytest.CaptureFixture[str]
) -> None:
    out, wanted = photo.with_suffix(".bin"), factor * base_bpp
    assert codec.main(["encode", str(photo), "-o", str(out), f"--steps={STEPS}", f"--target-bpp={wanted}"]) == 0
    assert 8 * out.stat().st_size / 64**2 == pytest.approx(wanted, rel=0.01)
    assert f"{out.stat().st_size} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("change", [-0.7, 0.7])
def test_a_file_decodes_to_the_psnr_that_was_asked_for(change: float, photo: Path) -> None:
    out, back = photo.with_suffix(".bin"), photo.with_name("back.png")
    codec.main(["encode", str(photo), "-o", str(out), f"--steps={STEPS}"])
    codec.main(["decode", str(out), "-o", str(back)])
    wanted = psnr_db(read_image(photo), read_image(back)) + change
    assert codec.main(["encode", str(photo), "-o", str(out), f"--steps={STEPS}", f"--target-psnr={wanted}"]) == 0
    codec.main(["decode", str(out), "-o", str(back)])
    assert psnr_db(read_image(photo), read_image(back)) == pytest.approx(wanted, abs=0.05)


def test_the_factorised_prior_lands_too(crop: Tensor) -> None:
    (checkpoint,) = (ROOT / "checkpoints").glob("factorised*.safetensors")
    loaded = load_codec(checkpoint)
    coded, _ = refine_photograph(loaded, crop, OBJECTIVE, settings(), Target("psnr_db", 30.0))
    assert coded.quality.psnr_db == pytest.approx(30.0, abs=0.05)


def test_steps_are_bounded_and_best_step_is_where_the_latents_are_from(embedded: LoadedCodec, crop: Tensor) -> None:
    _, result = refine_photograph(embedded, crop, OBJECTIVE, settings(steps=4), Target("bpp", 0.05))
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
    together = refinement.approach(x, originals, [0, 1])
    assert (together.lmbda.log() - together.lmbda.log().mean()).abs().min() > 0.1  # each has its own
    for i in range(2):
        alone = refinement.approach(x[i : i + 1], originals[i : i + 1], [i])
        torch.testing.assert_close(together.lmbda[i : i + 1], alone.lmbda, rtol=0.02, atol=0)
        torch.testing.assert_close(together.evaluations[..., i : i + 1], alone.evaluations, rtol=0.01, atol=0)


def test_a_seed_repeats_a_landing_to_the_bit(embedded: LoadedCodec, crop: Tensor) -> None:
    six = settings(steps=6)
    (_, first), (_, second) = (refine_photograph(embedded, crop, OBJECTIVE, six, Target("bpp", 0.8), seed=3) for _ in range(2))
    assert torch.equal(first.refined.y_hat, second.refined.y_hat) and torch.equal(first.curves, second.curves)


def refused(command: Callable[[list[str]], int], arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What is on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command(arguments)
    assert stop.value.code == code
    return capsys.readouterr().err


def test_what_cannot_be_reached_is_written_as_near_as_it_gets(
    photo: Path, base_bpp: float, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photo.with_suffix(".bin")
    error = refused(codec.main, ["encode", str(photo), "-o", str(out), "--steps=3", "--target-bpp=0.01"], 1, capsys)
    bpp = 8 * out.stat().st_size / 64**2
    assert error.splitlines() == [
        f"error: 0.01 bpp were not reached: {bpp:.4f} bpp are the nearest; more steps or another model may get nearer"
    ]
    assert bpp < 0.9 * base_bpp
    error = refused(codec.main, ["encode", str(photo), "-o", str(out), "--steps=3", "--target-psnr=90"], 1, capsys)
    assert "90 dB were not reached" in error and len(error.splitlines()) == 1
    codec.main(["decode", str(out), "-o", str(photo.with_name("back.png"))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-bpp=0.5", "--target-psnr=30"], "target_bpp and target_psnr exclude each other"),
        (["--target-bpp=0"], "target_bpp must be above 0"),
        (["--target-psnr=nan"], "target_psnr must be above 0"),
        (["--target-bpp=0.5", "--steps=0"], "a target needs at least one step"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.bin"
    (line,) = refused(codec.main, ["encode", str(photo), "-o", str(out), *arguments], 2, capsys).splitlines()
    assert message in line and not out.exists()


def folder_run(photo: Path, output: Path, *more: str) -> list[str]:
    config = ("--config", str(ROOT / "configs/refine/ssl.yaml"), "--data.root", str(photo.parent), "--output", str(output))
    return [*config, "--model.precision=fp32", "--trainer.accelerator=cpu", *more]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_image_of_a_folder_lands_with_a_lambda_of_its_own(photo: Path, photograph: Tensor, tmp_path: Path) -> None:
    write_image(photograph[:, 300:360, 100:164], photo.with_name("other.png"))
    output = tmp_path / "run"
    options = (f"--model.steps={STEPS}", "--data.batch_size=2", "--model.target_psnr=31", "--model.select=last")  # has no say
    assert refine.main(folder_run(photo, output, *options)) == 0
    found = rows(output)
    assert [float(row["psnr_db"]) for row in found] == pytest.approx([31.0, 31.0], abs=0.05)
    assert len({row["lmbda"] for row in found}) == 2
    tags = curves(read_run(output), "photo").keys()
    assert "true/rd_loss" in tags and "gap/rd_loss" not in tags  # lambda has moved between the two losses
    for row in found:
        loss = Objective(float(row["lmbda"])).loss(
            torch.tensor(float(row["bpp"])), torch.tensor(10 ** (-float(row["psnr_db"]) / 10)), None
        )
        assert float(row["rd_loss"]) == pytest.approx(loss.item(), rel=1e-5)


def test_a_folder_with_a_missed_target_says_so_each_time(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = folder_run(photo, tmp_path / "run", "--model.steps=2", "--model.target_bpp=0.01")
    for _ in range(2):
        error = refused(refine.main, arguments, 1, capsys).splitlines()
        assert error[-1].startswith("error: 1 of 1 images missed the target; their nearest files are written")
        assert "another try needs other settings" in error[-1] and "another --output" in error[-1]
        assert error[-2].startswith("target missed: photo: 0.01 bpp were not reached")
    assert len(rows(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.target_bpp=0.5", "--model.target_psnr=30"], "exclude each other"),
        (["--model.target_bpp=-1"], "error: target_bpp must be above 0"),
        (["--model.target_bpp=0.5", "--model.steps=0"], "a target needs at least one step"),
    ],
)
def test_a_run_with_a_target_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(refine.main, folder_run(photo, tmp_path / "run", *arguments), 2, capsys)
    assert message in error.splitlines()[-1] and not (tmp_path / "run").exists()


def of_lambda(objective: Objective) -> RateDistortion:
    """What images of different slopes would have at a lambda, without any delay."""
    lmbda = torch.as_tensor(objective.lmbda)
    bpp = 0.6 * (lmbda / 0.013) ** torch.tensor([0.2, 0.25, 0.4])
    mse = 1e-3 * (lmbda / 0.013) ** -torch.tensor([0.2, 0.25, 0.4])
    return RateDistortion(bpp, torch.zeros(3), mse, objective.loss(bpp, mse, None))


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
    found = RateDistortion(bpp, torch.zeros(5), mse, OBJECTIVE.loss(bpp, mse, None))
    score = controller.score(found, 1.0)
    assert score.argsort().tolist() == [0, 1, 2, 3, 4]
    assert (controller.score(found, 0.5) > score.max()).all()  # lambda still moves: another trade than that of the end
