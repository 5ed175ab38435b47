"""Every method of ``configs/refine`` says what was published."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

import refine
from lightning_modules import quiet

CONFIGS = Path(__file__).parents[2] / "configs/refine"
SGA = {"SgaTemperature": {"tau_max": 0.5, "rate": 1e-3, "t0": 700}}
SGA_PLUS = {"SgaPlusTemperature": {"tau_max": 1.0, "rate": 1e-3}}
ATANH = {"class_path": "sga.refinement.rounding.AtanhRounding"}
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "sga": ({"AtanhRounding": None}, SGA, 5e-3),
    "linear": ({"LinearRounding": None}, SGA_PLUS, 5e-3),
    "cosine": ({"CosineRounding": None}, SGA_PLUS, 5e-3),
    "ssl_published": ({"SigmoidScaledLogitRounding": {"a": 2.3}}, SGA_PLUS, 5e-3),
    "linear_three": ({"LinearThreeRounding": {"r": 0.98, "n": 1.5}}, SGA_PLUS, 5e-3),
    "cosine_three": ({"CosineThreeRounding": {"r": 0.98, "n": 2.0}}, SGA_PLUS, 5e-3),
    "ssl_three": ({"SigmoidScaledLogitThreeRounding": {"r": 0.98, "n": 1.4, "a": 1.4}}, SGA_PLUS, 5e-3),
    "deterministic_annealing": (
        {"DeterministicAnnealing": {"method": ATANH}},
        {"SgaPlusTemperature": {"tau_max": 0.2, "rate": 4e-3}},
        5e-3,
    ),
    "straight_through": ({"StraightThrough": None}, {"Constant": {"value": 1.0}}, 1e-4),
    "uniform_noise": ({"UniformNoise": None}, {"Constant": {"value": 1.0}}, 5e-3),
}


def parsed(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The model's settings as the command resolves them."""
    with pytest.raises(SystemExit) as stop:
        refine.main(["--config", str(CONFIGS / f"{name}.yaml"), "--data.root=photographs", "--output=run", "--print_config"])
    assert stop.value.code == 0
    model: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)["model"]
    return model


def test_a_configuration_goes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").write_text("model: {steps: 7}")
    (tmp_path / "more.yaml").write_text("model: {evaluate_every: 3}")
    with pytest.raises(SystemExit) as stop:
        refine.main(["--config", "sga", "--config=own", "--config", "more.yaml", "--data.root=x", "--output=run", "--print_config"])
    assert stop.value.code == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    assert (of(model["temperature"]), model["steps"], model["evaluate_every"]) == (SGA, 7, 3)


@pytest.mark.parametrize("words", [("-c", "sga"), ("-csga",), ("-c=sga",), ("--config=sga",)])
def test_a_configuration_takes_the_place_of_the_default(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        refine.main([*words, "--data.root=x", "--output=run", "--print_config"])
    assert stop.value.code == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    assert (of(model["temperature"]), model["adapt_prior"], model["betas"]) == (SGA, False, [0.9, 0.999])


def test_without_a_configuration_the_default_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        refine.main(["--data.root=x", "--output=run", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["model"] == parsed("balanced", capsys)


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        refine.main(["--conf", "sga", "--data.root=x", "--output=run"])
    assert stop.value.code == 2 and "--conf" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--config", "fats"), ("--config=fats",), ("--config", "fats.yaml")])
def test_a_configuration_that_there_is_not_is_one_line(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        refine.main([*words, "--output", str(tmp_path / "run")])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert "fats" in line and "no such file" in line and " balanced best " in line and "ssl_three" in line


def of(setting: dict[str, Any]) -> dict[str, Any]:
    return {setting["class_path"].split(".")[-1]: setting.get("init_args")}


def test_there_is_a_configuration_for_every_published_method() -> None:
    assert PUBLISHED.keys() <= {path.stem for path in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = parsed(name, capsys)
    rounding, temperature, learning_rate = PUBLISHED[name]
    assert (of(model["rounding"]), of(model["temperature"])) == (rounding, temperature)
    assert (model["learning_rate"], model["learning_rate_z"], model["steps"]) == (learning_rate, None, 2000)
    assert of(model["learning_rate_factor"]) == {"Constant": {"value": 1.0}}
    assert model["select"] == "last"


def test_the_command_line_brings_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["refine.py", "--data.root=photographs", "--output=run", "--print_config"])
    with warnings.catch_warnings(record=True) as seen, pytest.raises(SystemExit) as stop:
        warnings.simplefilter("always", UserWarning)
        importlib.reload(quiet)  # pytest has put its own filters in place of the commands'
        refine.main()
    assert stop.value.code == 0
    assert [str(warning.message) for warning in seen if "args parameter" in str(warning.message)] == []
