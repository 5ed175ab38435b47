"""Reports of runs with targets, of damaged runs, and of runs with long names."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_modules.results import write_result
from reports import optimisation, tables
from reports.pictures import telling_runs
from reports.points import study_curves
from reports.runs import comparable, read_study
from reports.section import Options
from tests.test_study_reports import RESULT, make_run


@pytest.fixture
def targeted(tmp_path: Path) -> Path:
    """Two runs to 0.5 bpp: each image has a lambda of its own, the first has the lower losses, the second the higher PSNR."""
    study = tmp_path / "study"
    for name, rounding, loss, psnr_db in (("one", "Cosine", 1.2, 31.0), ("two", "Linear", 1.4, 33.0)):
        run = make_run(study / name, {"a": loss, "b": loss}, curves=True, target_bpp=0.5, rounding=rounding)
        for image, lmbda in (("a", 0.01), ("b", 0.02)):
            row = replace(RESULT, image=image, method=rounding.lower(), lmbda=lmbda, rd_loss=loss, psnr_db=psnr_db)
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
    assert means.columns == ("run", "method", "steps", "bpp", "PSNR dB", "MS-SSIM", "seconds an image")
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
        "base": ["embedded"],
        "one, targets of bpp": ["target 0.5 bpp"],
        "ssl": ["lambda 0.013"],
        "ssl, targets of PSNR": ["target 32 dB", "target 34 dB"],
        "ssl, targets of bpp": ["target 0.25 bpp", "target 0.5 bpp"],
        "two, targets of bpp": ["target 0.5 bpp"],
    }
