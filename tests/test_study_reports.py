from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from data.refinement_data import ImageFile
from reports.__main__ import main
from reports.curves import curves
from reports.optimisation import mean_curves
from reports.points import model
from reports.probabilities import METHODS, probabilities
from reports.runs import comparable, read_run, read_study, shared_images
from reports.tables import Comparison, change, means_table, setting_tables
from reports.zoomed import place
from sga.bitstream import decode_latents
from sga.codecs import ScaleHyperpriorCodec, zoo
from sga.codecs.checkpoint import EMBEDDED, EMBEDDED_PATH
from sga.codecs.export import export_safetensors
from sga.coding import code_image
from sga.images import pad, read_image, to_float, write_image
from sga.loading import LoadedCodec, load_codec
from sga.quality import Quality
from sga.refinement.rounding import RelaxedRounding, hard_round
from sga.runs.results import ImageResult, write_result
from tests.conftest import random_codec

RESULT = ImageResult(
    *("a", 64, 64, "atanh", 10, 0.013, "mse", Quality(1.0, 30.0, None), 2.0, Quality(1.1, 31.0, None), 1.8, 1.1, 10, 3.0)
)


def make_run(folder: Path, losses: dict[str, float], curves: bool = False, **model: Any) -> Path:
    """A run as ``refine.py`` leaves it, of images with these R-D losses; the base's is 2."""
    rounding = model.pop("rounding", "Atanh")
    config = {
        "model": {
            "rounding": {"class_path": f"sga.refinement.rounding.{rounding}Rounding", "init_args": model.pop("init_args", {})},
            "checkpoint": "embedded",
            "steps": 10,
            "learning_rate": 0.005,
            **model,
        },
        "data": {"root": "samples"},
        "seed": 0,
    }
    (folder / "images").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for image, loss in losses.items():
        result = replace(RESULT, image=image, method=rounding.lower(), steps=config["model"]["steps"], rd_loss=loss)
        write_result(folder, result, {"fingerprint": "f", "source": f"sha of {image}"})
        if curves:
            with SummaryWriter(str(folder / "tensorboard" / image)) as writer:
                for step in (0, 5):
                    writer.add_scalar("relaxed/loss", loss + 0.5, step)
                for step in (0, 5, 10):
                    for name, value in (("rd_loss", loss - step / 10), ("bpp", 1.0), ("psnr_db", 30.0 + step)):
                        writer.add_scalar(f"true/{name}", value, step)
    return folder


def test_a_study_is_its_runs_with_what_they_have_finished(tmp_path: Path) -> None:
    make_run(tmp_path / "one", {"a": 1.5, "b": 1.6, "c": 1.7})
    make_run(tmp_path / "two", {"b": 1.4, "c": 1.2, "d": 1.0})
    make_run(tmp_path / "begun", {})
    (tmp_path / "one/images/e.json").write_text("{")
    (tmp_path / "classical").mkdir()
    study = read_study(tmp_path)
    one, two = study.runs
    assert (one.name, two.name) == ("one", "two") and one.damaged == ("e",)
    assert list(study.left_out) == ["begun"] and "no image is finished" in study.left_out["begun"]
    assert shared_images(study.runs) == ["b", "c"]
    assert two.mean("rd_loss", ["b", "c"]) == pytest.approx(1.3) and two.mean("ms_ssim", ["b"]) is None
    assert (one.steps, one.lmbda, one.method) == (10, 0.013, "atanh")
    assert [run.name for run in read_study(tmp_path / "one").runs] == ["one"]


def test_a_report_on_somebodys_run_imports_and_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, trace = make_run(tmp_path / "run", {"a": 1.5, "b": 1.6}, checkpoint="zoo:mbt2018/mse/3"), tmp_path / "executed"
    (run / "foreign_module.py").write_text(f"import os; os.mkdir({str(trace)!r})")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["rounding"] = {"class_path": "foreign_module.Rounding"}
    config["data"] |= {"class_path": "foreign_module.Data"}
    config["trainer"] = {"callbacks": [{"class_path": "foreign_module.Callback"}]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(run)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked: list[object] = []
    monkeypatch.setattr(zoo, "download", lambda *arguments: asked.append(arguments))
    main([str(run), "-o", str(tmp_path / "report")])
    assert (tmp_path / "report/index.html").is_file()
    assert model("zoo:mbt2018/mse/3") == ("mbt2018 for MSE", 0.0067, False) and model("zoo:mbt2018/mse/9").lmbda is None
    assert not asked and not trace.exists() and not (tmp_path / "torch").exists()
    importlib.import_module("foreign_module")
    assert trace.exists(), "importing the module would have left no trace"


def test_runs_of_other_lambdas_or_photographs_do_not_compare(tmp_path: Path) -> None:
    make_run(tmp_path / "one", {"a": 1.5})
    make_run(tmp_path / "two", {"a": 1.4})
    other = make_run(tmp_path / "three", {"a": 1.4})
    write_result(other, replace(RESULT, lmbda=0.025), {"source": "sha of another"})
    groups = comparable(read_study(tmp_path).runs)
    assert {label: [run.name for run in runs] for label, runs in groups.items()} == {
        "embedded, MSE, lambda 0.013": ["one", "two"],
        "embedded, MSE, lambda 0.025": ["three"],
    }
    with pytest.raises(ValueError, match="a is not the same photograph in the runs"):
        shared_images(read_study(tmp_path).runs)


def test_a_checkpoint_with_the_name_of_the_embedded_one_is_its_own(tmp_path: Path) -> None:
    own = tmp_path / EMBEDDED_PATH.name
    named = {"own": str(own), "elsewhere": f"no/such/folder/{own.name}", "given": str(EMBEDDED_PATH)}
    own.touch()
    found = {name: read_run(make_run(tmp_path / name, {"a": 1.5}, checkpoint=path)).checkpoint for name, path in named.items()}
    assert found == {"own": str(own), "elsewhere": EMBEDDED, "given": EMBEDDED}


def test_curves_are_means_over_images_and_the_gap_is_of_equal_steps(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", {"a": 1.0, "b": 2.0}, curves=True))
    assert curves(run, "a")["true/psnr_db"].values.tolist() == [30, 35, 40] and curves(run, "none") == {}
    found = mean_curves(run, ["a", "b"])
    assert found["true/rd_loss"].steps.tolist() == [0, 5, 10]
    assert found["true/rd_loss"].values == pytest.approx([1.5, 1.0, 0.5])
    # The method's own loss is 0.5 above the first; the true one falls by 0.1 per step.
    assert found["gap"].steps.tolist() == [0, 5] and found["gap"].values == pytest.approx([0.5, 1.0])
    shutil.rmtree(tmp_path / "run/tensorboard/b")
    with pytest.raises(ValueError, match="no curves of b"):
        mean_curves(run, ["a", "b"])


def test_changes_are_of_means_and_their_intervals_over_pairs() -> None:
    reference = [1.0, 2.0, 5.0]
    assert change([0.9, 1.8, 4.5], reference) == pytest.approx((-10, -10, -10))
    percent, low, high = change([1.0, 1.0, 5.0], reference)
    assert percent == pytest.approx(-12.5) and low == pytest.approx(-50) and high == pytest.approx(0)
    assert change([1.0, 1.0, 5.0], reference) == change([1.0, 1.0, 5.0], reference)
    assert str(change([1.0], [2.0])) == "-50.0 %"


def test_runs_of_models_that_were_called_the_same_do_not_compare(tmp_path: Path) -> None:
    for name, model_hash in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "1")):
        make_run(tmp_path / name, {"x": 2.0})
        result = tmp_path / name / "images/x.json"
        result.write_text(json.dumps({**json.loads(result.read_text()), "model_hash": model_hash}))
    groups = comparable(read_study(tmp_path).runs)
    assert [[run.name for run in runs] for runs in groups.values()] == [["a", "e"], ["b"], ["c"], ["d"]]


def test_tables_find_what_varies(tmp_path: Path) -> None:
    make_run(tmp_path / "base", {"a": 2.0, "b": 2.0}, steps=0)
    make_run(tmp_path / "slow", {"a": 1.8, "b": 1.6})
    make_run(tmp_path / "fast", {"a": 1.6, "b": 1.4, "c": 9.0}, learning_rate=0.02)
    for a, steps, loss in ((1.0, 10, 1.5), (2.3, 10, 1.4), (2.3, 20, 1.2)):
        make_run(
            tmp_path / f"ssl_{a}_{steps}", {"a": loss, "b": loss}, rounding="SigmoidScaledLogit", init_args={"a": a}, steps=steps
        )
    comparison = Comparison(read_study(tmp_path).runs)
    means = {row[0]: row for row in means_table(comparison, "all").rows}
    assert comparison.images == ["a", "b"]
    assert means["base"][6] == "2.0000" and means["slow"][6] == "1.7000" and means["fast"][6] == "1.5000"
    assert dict(zip(means_table(comparison, "all").columns, means["fast"], strict=True))["change"] == "-25.0 % (-30.0 to -20.0)"
    tables = {table.title.split()[-1]: table for table in setting_tables(comparison, "all")}
    assert set(tables) == {"rounding", "rounding.a", "steps", "learning_rate"}
    assert tables["learning_rate"].columns == ("other settings", "0.005", "0.02")
    cells = {name: [cell.split(",")[0] for cell in table.rows[0]] for name, table in tables.items()}
    ssl = "SigmoidScaledLogitRounding"
    assert cells["learning_rate"] == ["AtanhRounding", "1.7000", "1.5000"]
    assert cells["rounding.a"] == [ssl, "1.5000", "1.4000"] and cells["steps"] == [ssl, "1.4000", "1.2000"]
    assert tables["rounding"].columns == ("other settings", "AtanhRounding", f"{ssl}, a 1.0", f"{ssl}, a 2.3")
    assert cells["rounding"] == ["all", "1.7000", "1.5000", "1.4000"]
    assert tables["rounding"].note.endswith("in more than this: fast, ssl_2.3_20.") and "Not shown" in tables["learning_rate"].note
    against_slow = Comparison(read_study(tmp_path).runs, "slow")
    assert against_slow.change(against_slow.runs[-1]).percent == pytest.approx(100 * (1.2 / 1.7 - 1))
    (rates,) = (table for table in setting_tables(against_slow, "all") if table.title.endswith("learning_rate"))
    assert list(rates.rows[0][1:]) == ["1.7000, reference", "1.5000, -11.8 % (-12.5 to -11.1)"]


@pytest.mark.parametrize(
    "rounding", [rounding for several in METHODS.values() for rounding in several], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_probabilities_are_those_of_the_classes(rounding: RelaxedRounding, tau: float) -> None:
    value = torch.tensor([-1.3, -0.45, 0.02, 0.3, 0.7])
    candidates, found = probabilities(rounding, value, tau)
    assert found.sum(0).tolist() == pytest.approx([1] * 5)
    assert (candidates * found).sum(0).tolist() == pytest.approx(rounding(value, None, tau, None).tolist(), abs=1e-5)


def test_the_place_is_where_images_differ_most() -> None:
    photograph = torch.full((3, 96, 128), 100, dtype=torch.uint8)
    good, bad = photograph.clone(), photograph.clone()
    good[:, :40] += 50  # both are wrong alike
    bad[:, :40] += 50
    bad[:, 64:88, 80:104] += 20
    left, top = place(photograph, [good, bad], 24)
    assert (left, top) == (80, 64)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory, photograph: Tensor) -> Path:
    """A run with the files of a picture: its base, and what becomes of rounding y down."""
    folder = tmp_path_factory.mktemp("coded")
    export_safetensors(random_codec(ScaleHyperpriorCodec), folder / "m.safetensors", {"lmbda": "0.013", "distortion": "mse"})
    picture = photograph[:, 100:240, 200:360]
    (folder / "pictures").mkdir()
    write_image(picture, folder / "pictures/a.png")
    loaded = load_codec(folder / "m.safetensors")
    run = make_run(folder / "study/down", {"a": 1.5}, curves=True, checkpoint=str(folder / "m.safetensors"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["root"] = str(folder / "pictures")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    latents = loaded.codec.analyse(pad(to_float(picture), 64)[None])
    for name, quantise in (("bitstreams_base", hard_round), ("bitstreams", _down)):
        (run / name).mkdir()
        file = code_image(loaded, loaded.codec.quantise(latents, quantise, hard_round), picture).file
        (run / name / "a.bin").write_bytes(file)
    sha = ImageFile("a", folder / "pictures/a.png").sha256()
    write_result(run, replace(RESULT, rd_loss=1.5), {"source": sha})
    return folder


def _down(value: Tensor, offset: Tensor | None) -> Tensor:
    return torch.floor(value) if offset is None else hard_round(value, offset)


def test_latents_of_a_file_are_those_that_were_coded(coded: Path) -> None:
    loaded: LoadedCodec = load_codec(coded / "m.safetensors")
    found = decode_latents(loaded, (coded / "study/down/bitstreams/a.bin").read_bytes())
    latents = loaded.codec.analyse(pad(to_float(read_image(coded / "pictures/a.png")), 64)[None])
    expected = loaded.codec.quantise(latents, _down, hard_round)
    assert torch.equal(found.y_hat, expected.y_hat) and found.z_hat is not None and expected.z_hat is not None
    assert found.prior is not None and expected.prior is not None
    torch.testing.assert_close(found.z_hat, expected.z_hat)
    torch.testing.assert_close(found.prior.scales, expected.prior.scales)


def test_one_page_of_everything(coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(coded / "study"), "-o", str(tmp_path), "--size", "64", "--at", "10,20"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'index.html'}"
    page = (tmp_path / "index.html").read_text()
    assert set(re.findall("<h2>(.*)</h2>", page)) >= {"Results", "Optimisation", "Images", "Latents", "Rounding methods"}
    sources = re.findall(r'(?:src|href)="([^"]{5})', page)
    assert sources and set(sources) == {"data:"}
    group = "m_MSE_lambda_0.013"
    for name in (f"optimisation_{group}", f"crops_{group}", f"latents_{group}", "probabilities"):
        assert all((tmp_path / f"figures/{name}.{suffix}").stat().st_size for suffix in ("png", "svg", "csv")), name
    with (tmp_path / f"figures/crops_{group}.csv").open() as file:
        base, refined = csv.DictReader(file)
    assert (base["bpp"], refined["bpp"], refined["left"], refined["top"]) == ("1.0", "1.1", "10", "20")
    assert float(base["PSNR dB of the crop"]) > float(refined["PSNR dB of the crop"])
    with (tmp_path / f"figures/latents_{group}.csv").open() as file:
        rows = list(csv.DictReader(file))
    down = [row for row in rows if row["file"] == "down"]
    assert len(down) == len(rows) / 2 == 9 * 10  # the picture has 140 x 160 pixels
    normalised = np.array([float(row["y_hat"]) / float(row["sigma"]) for row in down])
    assert normalised == pytest.approx([float(row["normalised"]) for row in down], rel=1e-5)


def test_what_the_runs_do_not_allow_is_left_out_with_the_reason(
    coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    shutil.copytree(coded / "study", study)
    shutil.rmtree(study / "down/tensorboard")
    shutil.rmtree(study / "down/bitstreams_base")
    assert main([str(study), "-o", str(tmp_path / "out")]) == 0
    *left_out, _ = capsys.readouterr().out.splitlines()
    reasons = {line.split(": ")[1]: line for line in left_out}
    assert "tables" not in reasons and "probabilities" not in reasons
    assert "no curves of a" in reasons["optimisation"] and "a.bin" in reasons["zoomed"] and "a.bin" in reasons["latent_maps"]


def test_another_photograph_of_the_name_is_not_drawn(coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(torch.zeros(3, 140, 160, dtype=torch.uint8), tmp_path / "a.png")
    assert main([str(coded / "study"), "-o", str(tmp_path / "out"), "--originals", str(tmp_path)]) == 0
    assert "is not the photograph that down has refined" in capsys.readouterr().out
    assert not list((tmp_path / "out/figures").glob("crops*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["STUDY", "--reference", "up"], "no run up to compare with: there are down"),
        (["STUDY", "--image", "b"], "no run has finished an image b: there are a"),
        (["STUDY/down/images"], "holds no finished run"),
        (["STUDY/none"], "is not a folder"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, *rest = arguments
    with pytest.raises(SystemExit) as stop:
        main([study.replace("STUDY", str(coded / "study")), *rest, "-o", str(tmp_path / "out")])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and message in error and "\n" not in error and not (tmp_path / "out").exists()
