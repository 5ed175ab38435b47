"""Every preset of ``configs/train``: it parses, says what its name says, and trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train
from lightning_modules.training_configs import training_configs
from sga.loading import load_codec

CONFIGS = Path(__file__).parents[2] / "configs/train"
VARIABLE_RATE = "variable_rate_scale_hyperprior"
CODECS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != VARIABLE_RATE)
QUALITIES = {
    codec: [
        f"{metric}_{quality}" for metric in ("mse", "ms_ssim") for quality in range(1, 7 if codec.startswith("cheng2020") else 9)
    ]
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


def configs(*names: str) -> list[str]:
    return ["fit", *(part for config in names for part in ("--config", config))]


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    """The settings as the command resolves them."""
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments, "--data.root=photographs", "--print_config"])
    assert stop.value.code == 0
    settings: dict[str, dict[str, object]] = yaml.safe_load(capsys.readouterr().out)
    return settings


def test_a_codec_for_all_rates_has_no_qualities(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(configs(f"{VARIABLE_RATE}/mse_4"))
    assert stop.value.code == 2 and "one training is for all lambdas" in capsys.readouterr().err


def test_there_is_a_preset_for_every_codec_and_quality() -> None:
    assert {codec: len(qualities) for codec, qualities in QUALITIES.items()} == {
        "cheng2020_anchor": 12,
        "cheng2020_attention": 12,
        "factorised_prior": 16,
        "mean_scale_hyperprior": 16,
        "scale_hyperprior": 16,
    }
    assert {name(path) for path in LENGTHS} >= {"smoke", "short", "full"}


@pytest.mark.parametrize(("codec", "quality"), COMBINATIONS, ids=str)
def test_qualities_are_those_of_compressai(codec: str, quality: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = printed(configs(f"{codec}/{quality}"), capsys)["model"]
    metric, level = quality.rsplit("_", 1)
    assert (model["distortion"], model["lmbda"]) == (metric, LAMBDAS[metric][int(level) - 1])
    if codec.startswith("cheng2020"):
        sizes = {"N": 128 if int(level) <= 3 else 192}
    else:
        sizes = {"N": 128, "M": 192} if int(level) <= 5 else {"N": 192, "M": 320}
    class_path = yaml.safe_load((CONFIGS / f"{codec}.yaml").read_text())["model"]["codec"]["class_path"]
    assert model["codec"] == {"class_path": class_path, "init_args": sizes}


def test_what_stands_behind_a_quality_overrides_it(capsys: pytest.CaptureFixture[str]) -> None:
    settings = printed(["fit", "-c", "scale_hyperprior/mse_6", "--config=length/smoke", "--model.lmbda=0.02"], capsys)
    model = settings["model"]
    assert (model["lmbda"], model["distortion"], settings["trainer"]["max_steps"]) == (0.02, "mse", 2)
    assert model["codec"] == {"class_path": "sga.codecs.ScaleHyperpriorCodec", "init_args": {"N": 192, "M": 320}}


def test_a_codec_of_ones_own_has_the_lambdas_and_keeps_its_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {codec: {class_path: mine.MyCodec, init_args: {N: 5}}}")
    file, settings = training_configs(f"{path}/ms_ssim_8")
    assert file == str(path) and yaml.safe_load(settings) == {"model": {"lmbda": 220.0, "distortion": "ms_ssim"}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("scale", "--config scale: no such file; give the path of one, or a name of configs/train: cheng2020_anchor "),
        ("scale/mse_4", "--config scale: no such file"),
        ("missing.yaml", "--config missing.yaml: no such file"),
        ("scale_hyperprior/mse_9", "ScaleHyperpriorCodec has no quality mse_9: they are mse_1 to mse_8"),
        ("cheng2020_anchor/ms_ssim_7", "Cheng2020AnchorCodec has no quality ms_ssim_7: they are mse_1 to mse_6"),
        ("length/short/mse_4", "short.yaml names no codec"),
        ("configs/train/quality/mse_4.yaml", "--config scale_hyperprior/mse_4 in place of --config scale_hyperprior"),
        ("/old/configs/train/quality/cheng2020/mse_2.yaml", "--config cheng2020_anchor/mse_2 in place of"),
    ],
)
def test_a_name_that_there_is_not_is_one_line(config: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(["fit", "--config", config, "--data.root=photographs"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and message in line


def test_the_help_says_what_follows_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "length/short" in text and "such as scale_hyperprior/mse_4" in text


@pytest.mark.parametrize(
    ("codec", "quality"),
    [
        (codec, quality)
        for codec, quality in COMBINATIONS
        if quality in ({"mse_3", "ms_ssim_4"} if codec.startswith("cheng2020") else {"mse_4", "ms_ssim_4", "mse_6"})
    ],
    ids=str,
)
def test_every_codec_runs_its_smoke_length(codec: str, quality: str, photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = configs(f"{codec}/{quality}", "length/smoke")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
    train.main([*arguments, "--data.root", str(photographs), "--data.workers=0", "--output", str(output), *quiet])
    loaded = load_codec(output / "last.ckpt")
    metric, level = quality.rsplit("_", 1)
    assert loaded.lmbda == LAMBDAS[metric][int(level) - 1]


@pytest.mark.parametrize("length", LENGTHS, ids=name)
def test_every_length_trains(length: Path, photographs: Path, tmp_path: Path) -> None:
    tiny = ("--model.codec.init_args.N=8", "--model.codec.init_args.M=12", "--model.compile=false", "--trainer.max_steps=2")
    small = ("--data.crop_size=64", "--data.batch_size=1", "--data.steps_per_epoch=2", "--data.workers=0")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
    folders = ("--data.root", str(photographs), "--data.valid", str(photographs), "--output", str(tmp_path / "run"))
    train.main([*configs(str(CONFIGS / "scale_hyperprior.yaml"), str(length)), *tiny, *small, *quiet, *folders])
    assert (tmp_path / "run/best.ckpt").is_file()


@pytest.mark.parametrize("length", LENGTHS, ids=name)
def test_the_last_steps_are_validated(length: Path) -> None:
    settings = yaml.safe_load(length.read_text())
    if "minutes" not in settings["model"]:  # by the clock, a training ends with a validation wherever it is
        assert settings["trainer"]["max_steps"] % settings["data"]["steps_per_epoch"] == 0
