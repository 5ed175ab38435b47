"""``codec.py`` and ``refine.py`` with a target, and with files that adapt their prior."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import codec
import refine
from reports.curves import curves
from reports.runs import read_run
from sga.images import read_image, write_image
from sga.loading import LoadedCodec
from sga.measures import psnr_db
from sga.photograph import encode_photograph
from sga.rate_distortion import Objective

ROOT = Path(__file__).parents[1]
STEPS = 30


def test_codec_py_says_what_the_file_tells(photograph: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(photograph, tmp_path / "photo.png")
    codec.main(["encode", str(tmp_path / "photo.png"), "-o", str(tmp_path / "photo.bin"), "--preset", "fast", "--steps", "4"])
    codec.main(["info", str(tmp_path / "photo.bin")])
    assert "adaptation of the prior" in capsys.readouterr().out
    codec.main(["decode", str(tmp_path / "photo.bin"), "-o", str(tmp_path / "back.png")])
    assert (tmp_path / "back.png").is_file()


@pytest.fixture
def photo(crop: Tensor, tmp_path: Path) -> Path:
    path = tmp_path / "photographs/photo.png"
    path.parent.mkdir()
    write_image(crop, path)
    return path


@pytest.fixture
def base_bpp(embedded: LoadedCodec, crop: Tensor) -> float:
    """Bits per pixel of the file of the encoder's latents."""
    return encode_photograph(embedded, crop)[0].quality.bpp


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


def refused(command: Callable[[list[str]], int], arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Text on standard error."""
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
            torch.tensor(float(row["bpp"])), torch.tensor(10 ** (-float(row["psnr_db"]) / 10))
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
