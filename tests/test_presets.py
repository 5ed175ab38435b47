"""Every preset of ``configs/train``: it parses, says what its name says, and trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train
from lightning_modules.codecs.checkpoint import load_codec

CONFIGS = Path(__file__).parents[1] / "configs/train"
VARIABLE_RATE = CONFIGS / "variable_rate_scale_hyperprior.yaml"
CODECS = sorted(path for path in CONFIGS.glob("*.yaml") if path != VARIABLE_RATE)
QUALITIES = {
    codec: sorted(CONFIGS.glob("quality/cheng2020/*.yaml" if codec.stem.startswith("cheng2020") else "quality/*.yaml"))
    for codec in CODECS
}
COMBINATIONS = [(codec, quality) for codec, qualities in QUALITIES.items() for quality in qualities]
LENGTHS = sorted(CONFIGS.glob("length/*.yaml"))
LAMBDAS = {
    "mse": (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18),
    "ms_ssim": (2.4, 4.58, 8.73, 16.64, 31.73, 60.5, 115.37, 220.0),
}


def name(path: Path) -> str:
    return path.stem


def configs(*paths: Path) -> list[str]:
    return ["fit", *(part for path in paths for part in ("--config", str(path)))]


def test_there_is_a_preset_for_every_codec_and_quality() -> None:
    assert {name(path): len(qualities) for path, qualities in QUALITIES.items()} == {
        "cheng2020_anchor": 12,
        "cheng2020_attention": 12,
        "factorised_prior": 16,
        "mean_scale_hyperprior": 16,
        "scale_hyperprior": 16,
    }
    assert {name(path) for path in LENGTHS} >= {"smoke", "short", "full"}


@pytest.mark.parametrize(("codec", "quality"), COMBINATIONS, ids=name)
def test_qualities_are_those_of_compressai(codec: Path, quality: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([*configs(codec, quality), "--data.root=photographs", "--print_config"])
    assert stop.value.code == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    metric, level = quality.stem.rsplit("_", 1)
    assert (model["distortion"], model["lmbda"]) == (metric, LAMBDAS[metric][int(level) - 1])
    if codec.stem.startswith("cheng2020"):
        assert model["codec"]["init_args"] == {"N": 128 if int(level) <= 3 else 192}
    else:
        assert model["codec"]["init_args"] == ({"N": 128, "M": 192} if int(level) <= 5 else {"N": 192, "M": 320})
    assert model["codec"]["class_path"] == yaml.safe_load(codec.read_text())["model"]["codec"]["class_path"]


@pytest.mark.parametrize(
    ("codec", "quality"),
    [
        (codec, quality)
        for codec, quality in COMBINATIONS
        if name(quality) in ({"mse_3", "ms_ssim_4"} if codec.stem.startswith("cheng2020") else {"mse_4", "ms_ssim_4", "mse_6"})
    ],
    ids=name,
)
def test_every_codec_runs_its_smoke_length(codec: Path, quality: Path, photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = configs(codec, quality, CONFIGS / "length/smoke.yaml")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
    train.main([*arguments, "--data.root", str(photographs), "--data.workers=0", "--output", str(output), *quiet])
    loaded = load_codec(output / "last.ckpt")
    assert loaded.lmbda == yaml.safe_load(quality.read_text())["model"]["lmbda"]


@pytest.mark.parametrize("length", LENGTHS, ids=name)
def test_every_length_trains(length: Path, photographs: Path, tmp_path: Path) -> None:
    tiny = ("--model.codec.init_args.N=8", "--model.codec.init_args.M=12", "--model.compile=false", "--trainer.max_steps=2")
    small = ("--data.crop_size=64", "--data.batch_size=1", "--data.steps_per_epoch=2", "--data.workers=0")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
    folders = ("--data.root", str(photographs), "--data.valid", str(photographs), "--output", str(tmp_path / "run"))
    train.main([*configs(CONFIGS / "scale_hyperprior.yaml", length), *tiny, *small, *quiet, *folders])
    assert (tmp_path / "run/best.ckpt").is_file()


@pytest.mark.parametrize("length", LENGTHS, ids=name)
def test_the_last_steps_are_validated(length: Path) -> None:
    settings = yaml.safe_load(length.read_text())
    if "minutes" not in settings["model"]:  # by the clock, a training ends with a validation wherever it is
        assert settings["trainer"]["max_steps"] % settings["data"]["steps_per_epoch"] == 0
