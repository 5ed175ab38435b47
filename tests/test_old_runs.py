"""Runs of earlier versions (``tests/old_runs``), whose classes have names of ``lightning_modules``, where the core was then."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import refine
import train
from lightning_modules.refinement_cli import CheckedRefinement
from reports.runs import method_names, read_run
from sga.refinement import rounding, schedules
from tests.conftest import ONE_RATE

OLD = Path(__file__).parent / "old_runs"
REFINED = ("refined", "refined_da")
FORMER_FAST = ("--config=balanced", "--model.learning_rate=0.2", "--model.learning_rate_z=0.03", "--model.rounding.probes=16")
"""The preset fast of that time, as far as it differed from balanced."""
SMALL = ("--data.limit=1", "--model.precision=fp32", "--trainer.accelerator=cpu")


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return settings


@pytest.mark.parametrize("name", REFINED)
def test_the_configuration_of_an_old_refinement_refines(name: str, pictures: Path, tmp_path: Path) -> None:
    options = ("--data.root", str(pictures), "--output", str(tmp_path / "new"), *SMALL)
    assert refine.main(["--config", str(OLD / name / "config.yaml"), *options]) == 0
    assert (tmp_path / "new/bitstreams/large.bin").is_file()


def test_old_names_are_those_of_the_classes(tmp_path: Path) -> None:
    config = ("--config", str(OLD / "refined_da/config.yaml"), "--data.root=samples", "--output", str(tmp_path))
    settings = CheckedRefinement(config).config_init.model.settings
    assert type(settings.rounding) is rounding.DeterministicAnnealing
    assert type(settings.temperature) is schedules.SgaPlusTemperature


@pytest.mark.parametrize(("name", "settings"), [("refined", FORMER_FAST), ("refined_da", ("--config=deterministic_annealing",))])
def test_an_old_job_is_known_and_does_not_go_on(
    name: str, settings: tuple[str, ...], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its images had other noise. It is recognised by the mark of the same settings under their former names."""
    (mark,) = {yaml.safe_load(path.read_text())["fingerprint"] for path in (OLD / name / "images").iterdir()}
    (tmp_path / f".fingerprint-{mark}").touch()
    data = ("--data.root", str(pictures), "--output", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        refine.main([*settings, f"--model.checkpoint={ONE_RATE}", "--model.steps=3", *data])
    assert stop.value.code == 2 and "belongs to a job of an earlier version" in capsys.readouterr().err


def test_of_an_old_job_the_options_that_differ_are_named(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(OLD / "refined", tmp_path / "run"))
    for old, new in (("a", "large"), ("b", "small")):
        content = (output / f"images/{old}.json").read_text().replace(f'"image": "{old}"', f'"image": "{new}"')
        (output / f"images/{new}.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        refine.main([*FORMER_FAST, "--model.steps=4", "--data.root", str(pictures), "--output", str(output)])
    assert stop.value.code == 2 and "holds results of other settings (--model.steps): " in capsys.readouterr().err


@pytest.mark.parametrize(("name", "method"), [("refined", "expected"), ("refined_da", "deterministic annealing")])
def test_a_report_reads_an_old_run(name: str, method: str) -> None:
    run = read_run(OLD / name)
    assert (run.method, [result.image for result in run.results]) == (method, ["a", "b"])
    assert method in method_names([run])[name]


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_configuration_of_an_old_training_parses(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([command, "--config", str(OLD / "trained/config.yaml"), "--print_config"])
    assert stop.value.code == 0
    model = printed(capsys)["model"]
    assert (model["codec"]["init_args"], model["lmbda"]) == ({"N": 8, "M": 12}, 0.013)


def test_the_configuration_of_an_old_training_trains_and_is_tested(photographs: Path, pictures: Path, tmp_path: Path) -> None:
    config = ("--config", str(OLD / "trained/config.yaml"), "--output", str(tmp_path), "--trainer.accelerator=cpu")
    folders = ("--data.root", str(photographs), "--data.valid", str(pictures), "--trainer.enable_progress_bar=false")
    assert train.main(["fit", *config, *folders]) == 0
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    assert train.main(["test", *config, "--data.test", str(pictures), "--data.root", str(photographs)]) == 0
    assert len(list((tmp_path / "test/bitstreams").iterdir())) == 2
