"""Reports of runs with targets, of damaged runs, and of runs with long names."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import yaml

from lightning_modules.hparams import SETTINGS, settings_row
from lightning_modules.refinement_module import RefinementModule
from reports import compressai_json, optimisation, tables
from reports.__main__ import main
from reports.figures import save, style
from reports.photographs import telling_runs
from reports.points import study_curves
from reports.runs import comparable, method_names, read_study
from reports.section import Options
from sga.quality import LATER, METRICS
from sga.refinement.rounding import AtanhRounding
from sga.refinement.schedules import Constant
from sga.runs.results import read_result, write_result
from sga.runs.summary import summarise
from tests.test_study_reports import RESULT, make_run


@pytest.fixture
def targeted(tmp_path: Path) -> Path:
    """Two runs to 0.5 bpp: each image has a lambda of its own, the first has the lower losses, the second the higher PSNR."""
    study = tmp_path / "study"
    for name, rounding, loss, psnr_db in (("one", "Cosine", 1.2, 31.0), ("two", "Linear", 1.4, 33.0)):
        run = make_run(study / name, {"a": loss, "b": loss}, curves=True, target_bpp=0.5, rounding=rounding)
        for image, lmbda in (("a", 0.01), ("b", 0.02)):
            row = replace(RESULT, image=image, method=rounding.lower(), lmbda=lmbda, rd_loss=loss)
            row = replace(row, refined=replace(row.refined, psnr_db=psnr_db))
            write_result(run, row, {"source": f"sha of {image}"})
    return study


def test_runs_compare_with_those_of_their_target(targeted: Path) -> None:
    for name, options in (("psnr", {"target_psnr": 32.0}), ("high", {"target_bpp": 0.75}), ("plain", {})):
        make_run(targeted / name, {"a": 1.5}, **options)
    assert {label: [run.name for run in runs] for label, runs in comparable(read_study(targeted).runs).items()} == {
        "embedded, MSE, target 0.75 bpp": ["high"],
        "embedded, MSE, target 0.5 bpp": ["one", "two"],
        "embedded, MSE, lambda 0.013": ["plain"],
        "embedded, MSE, target 32 dB": ["psnr"],
    }


def test_losses_of_runs_with_targets_are_not_compared(targeted: Path, tmp_path: Path) -> None:
    study, options = read_study(targeted), Options(tmp_path / "report")
    means, settings = tables.section(study, options).tables
    newer = tuple(METRICS[name].heading for name in LATER)
    assert means.columns == ("run", "method", "steps", "bpp", "PSNR dB", "MS-SSIM", "seconds an image", *newer)
    assert [row[0] for row in means.rows] == ["base", "one", "two"] and means.rows[1][4] == "31.00"
    assert means.data_columns == means.columns and len(means.data[1]) == len(means.columns)
    assert "do not compare" in means.note and settings.title.startswith("Settings")
    (drawing,) = optimisation.section(study, options).drawings
    assert "loss" not in drawing.caption
    with next(path for path in drawing.files if path.suffix == ".csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["run", "step", "PSNR dB", "bpp", "images"] and rows[1] == ["one", "0", "30.0", "1.0", "2"]
    assert [run.name for run in telling_runs(study.runs)] == ["two", "one"]


def test_runs_that_differ_in_their_target_form_a_curve(targeted: Path) -> None:
    for name, options in (
        ("ssl_0.25bpp", {"target_bpp": 0.25, "lmbda": 0.003}),
        ("ssl_0.5bpp", {"target_bpp": 0.5}),
        ("ssl_32dB", {"target_psnr": 32.0}),
        ("ssl_34dB", {"target_psnr": 34.0}),
        ("ssl", {}),
    ):
        make_run(targeted / name, {"a": 1.5}, **options)
    curves = {curve.name: [point.label for point in curve.points] for curve in study_curves(read_study(targeted))}
    assert curves == {
        "base": ["lambda 0.013"],
        "one, targets of bpp": ["target 0.5 bpp"],
        "ssl": ["lambda 0.013"],
        "ssl, targets of PSNR": ["target 32 dB", "target 34 dB"],
        "ssl, targets of bpp": ["target 0.25 bpp", "target 0.5 bpp"],
        "two, targets of bpp": ["target 0.5 bpp"],
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"checkpoint": None}, "is not that of a run of refine.py"),
        ({"checkpoint": 5}, "does not name a method and a checkpoint"),
        ({"target_bpp": "small"}, "is not that of a run of refine.py"),
        ({"target_bpp": 0.5, "target_psnr": 32.0}, "is not that of a run of refine.py"),
    ],
)
def test_a_run_whose_config_is_damaged_is_left_out(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    make_run(tmp_path / "sound", {"a": 1.5})
    path = make_run(tmp_path / "hurt", {"a": 1.5}) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    model = {key: value for key, value in {**config["model"], **change}.items() if value is not None}
    path.write_text(yaml.safe_dump({**config, "model": model}))
    study = read_study(tmp_path)
    assert [run.name for run in study.runs] == ["sound"] and reason in study.left_out["hurt"]


def test_a_run_that_does_not_know_its_photographs_still_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path / "run", {"a": 1.5}) / "config.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "data"}))
    assert main([str(tmp_path / "run"), "-o", str(tmp_path / "report")]) == 0
    assert "does not say where the photographs are: give --originals" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change", [{"rd_loss": "abc"}, {"psnr_db": [30]}, {"steps": 1.5}, {"height": True}, {"bpp": None}, {"image": "b"}]
)
def test_a_result_of_a_wrong_type_is_damaged(change: dict[str, Any], tmp_path: Path) -> None:
    path = make_run(tmp_path, {"a": 1.5}) / "images/a.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "psnr_db": None, "bpp": 1}))
    found = read_result(tmp_path, "a")
    assert found is not None and found[0].rd_loss == 1.5
    path.write_text(json.dumps({**content, **change}))
    assert read_result(tmp_path, "a") is None


def test_a_report_has_no_absolute_path(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / "study" / name, {"a": 1.5}, checkpoint=str(tmp_path / f"our models/{name}/m.safetensors"))
    (make_run(tmp_path / "study/hurt", {"a": 1.5}) / "config.yaml").write_text("model: 5")
    assert main([str(tmp_path / "study"), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report/index.html").read_text()
    assert "hurt/config.yaml is not that" in page and "checkpoint ../our models/one/m.safetensors" in page
    written = [path for path in (tmp_path / "report").rglob("*") if path.suffix in (".html", ".md", ".csv", ".svg")]
    assert not [path for path in written if str(tmp_path) in path.read_text()]


def test_a_method_is_named_by_what_varies_among_its_runs(tmp_path: Path) -> None:
    for name, a in (("mild", 1.0), ("steep", 2.3)):
        make_run(tmp_path / name, {"a": 1.5}, rounding="Expected", init_args={"probes": 16, "a": a})
    make_run(tmp_path / "linear", {"a": 1.5}, rounding="Linear", init_args={"r": 0.98})
    make_run(tmp_path / "none", {"a": 2.0}, steps=0)
    runs = read_study(tmp_path).runs
    names = {"mild": "expected (a 1.0)", "steep": "expected (a 2.3)", "linear": "linear", "none": "base"}
    assert method_names(runs) == names
    assert method_names(runs[:2]) == {"linear": "linear", "mild": "expected"}
    (table, *_) = tables.section(read_study(tmp_path), Options(tmp_path / "report")).tables
    assert [row[1] for row in table.rows] == ["", "linear", "expected (a 1.0)", "expected (a 2.3)"]


def test_the_table_of_runs_has_targets_and_adapted_priors() -> None:
    rows = [
        settings_row(RefinementModule(rounding=AtanhRounding(), temperature=Constant(), **options), "sga", "embedded")
        for options in ({"target_bpp": 0.5, "adapt_prior": True}, {"target_psnr": 32.0}, {})
    ]
    assert [(row["adapt_prior"], row.get("target_bpp"), row.get("target_psnr")) for row in rows] == [
        (True, 0.5, None),
        (False, None, 32.0),
        (False, None, None),
    ]
    assert set().union(*rows) <= set(SETTINGS)


def test_curves_whose_names_differ_in_punctuation_have_a_file_each(tmp_path: Path) -> None:
    for name, a in (("ssl-a", 1.0), ("ssl+a", 1.5), ("SSL a", 2.0), ("other", 3.0)):
        make_run(tmp_path / "study" / name, {"a": 1.5}, init_args={"a": a})
    paths, _ = compressai_json.write(read_study(tmp_path / "study"), tmp_path / "json")
    names = {path.name.lower(): json.loads(path.read_text())["name"] for path in paths}
    assert len(names) == len(paths) == 5 and {"ssl_a.json", "ssl_a_2.json", "ssl_a_3.json"} < set(names)
    assert set(names.values()) == {"base", "other", "ssl-a", "ssl+a", "SSL_a"}


def test_a_report_counts_what_the_summary_covers_and_names_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "study/one", {"a": 1.5, "x_a_png": 1.6, "y_a_png": 1.7})
    assert [result.image for result in read_study(run).runs[0].results] == ["a", "x_a_png", "y_a_png"]  # not summarised yet
    summarise(run, ["x_a_png", "y_a_png"], "f")  # a namesake of a has renamed it
    found = read_study(run).runs[0]
    assert [result.image for result in found.results] == ["x_a_png", "y_a_png"] and found.outside == ("a",)
    assert found.mean("rd_loss", list(found.by_image)) == pytest.approx(1.65)
    assert main([str(run.parent), "-o", str(tmp_path / "report")]) == 0
    line = "1 images of one that its results.csv does not cover (renamed, or the job was stopped; run it again): a"
    assert line in (tmp_path / "report/index.html").read_text()
    assert line in "".join(capsys.readouterr())
    summarise(run, [], "f")
    with pytest.raises(ValueError, match=r"results\.csv covers none of its 3 results: run refine\.py again"):
        read_study(run)


def test_a_name_is_not_mathematics_in_figures(tmp_path: Path) -> None:
    with style():
        figure = plt.figure()
        figure.suptitle("cost $x_{ of $ signs")
        save(figure, tmp_path / "figure", ("a",), [(1,)])
    assert (tmp_path / "figure.png").stat().st_size > 0
