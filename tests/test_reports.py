from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import refine
from reports import checkpoints, distortions
from sga.codecs import ScaleHyperpriorCodec
from sga.codecs.export import export_safetensors
from sga.images import write_image
from sga.loading import LoadedCodec
from sga.refinement.target import Target

ROOT = Path(__file__).parents[1]


def test_the_table_of_models_sets_measured_beside_published(
    photograph: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(photograph[:, 100:300, 200:400], tmp_path / "photo.png")
    run = tmp_path / "run"
    config = ("--config", str(ROOT / "configs/refine/ssl.yaml"), "--model.steps=0", "--trainer.accelerator=cpu")
    assert refine.main([*config, "--data.root", str(tmp_path / "photo.png"), "--output", str(run)]) == 0
    monkeypatch.setattr(sys, "argv", ["checkpoints.py", str(run)])

    def table() -> dict[str, str]:
        capsys.readouterr()
        assert checkpoints.main() == 0
        lines = capsys.readouterr().out.strip().splitlines()
        header, _, cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        return dict(zip(header, cells, strict=True))

    assert (table()["published"], table()["gap"]) == ("none", "")  # this photograph is not of Kodak
    monkeypatch.setattr(checkpoints, "whole_kodak", lambda pixels: pixels == {"photo": 200**2})
    found = table()
    facts = (found["model"], found["distortion"], found["lambda"], found["images"])
    assert facts == ("bmshj2018-hyperprior-vbr", "mse", "0.013", "1")
    # One image: the loss of the means is the mean loss. 0.9182 is 0.4784 + 0.013 * 255^2 / 10^3.2838.
    assert found["R-D loss"] == found["R-D loss of the means"] and found["published"] == "0.9182"
    assert found["gap"] == f"{100 * (float(found['R-D loss']) / 0.9182 - 1):+.1f} %"


def test_a_folder_without_a_run_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoints.py", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        checkpoints.main()
    assert stop.value.code == 2 and "summary.json" in capsys.readouterr().err


def test_lambda_moves_until_a_file_has_the_size(embedded: LoadedCodec, photograph: Tensor) -> None:
    image = photograph[:, 100:228, 200:328]
    bpp = distortions.refined(embedded, image, steps=10).quality.bpp
    smaller = distortions.refined(embedded, image, steps=10, target=Target("bpp", 0.93 * bpp))
    assert 8 * len(smaller.file) / 128**2 == pytest.approx(0.93 * bpp, rel=0.01)


def test_pictures_of_two_models_at_equal_rates(photograph: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    export_safetensors(ScaleHyperpriorCodec(8, 12), tmp_path / "m.safetensors", {"lmbda": "8.73", "distortion": "ms_ssim"})
    write_image(photograph[:, 100:292, 200:392], tmp_path / "photo.png")
    arguments = [str(tmp_path / "photo.png"), "--mse", "embedded", "--ms-ssim", str(tmp_path / "m.safetensors"), "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["distortions.py", *arguments, "--crop", "100", "-o", str(tmp_path / "pictures")])
    assert distortions.main() == 0
    with Image.open(tmp_path / "pictures/photo.png") as picture:
        assert picture.width > 300 and picture.height > 100
