from __future__ import annotations

import csv
import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from compressai.utils.plot.__main__ import parse_json_file
from torch import Tensor

from reports import bd_rate, bd_tables, classical, compressai_json, points, published_rates, rd_curves
from reports.points import RateCurve, RatePoint, shared, study_curves
from reports.runs import read_study
from reports.section import Options
from sga.codecs.checkpoint import EMBEDDED
from sga.codecs.export import export_safetensors
from sga.files import sha256_of
from sga.images import write_image
from sga.loading import load_codec
from sga.published import published_points
from sga.quality import Quality
from sga.runs.folder import IMAGES
from sga.runs.results import ImageResult, write_result
from tests.conftest import ONE_RATE

BPP = np.array([0.2, 0.35, 0.6, 0.9, 1.3])
PSNR = np.array([28.0, 30.1, 32.5, 34.4, 36.2])
LMBDAS = (0.0035, 0.0067, 0.013, 0.025)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The shipped checkpoint of one rate under the lambdas of four."""
    folder, codec = tmp_path_factory.mktemp("checkpoints"), load_codec(ONE_RATE).codec
    paths = {lmbda: folder / f"scale_hyperprior_mse_lmbda{lmbda}.safetensors" for lmbda in LMBDAS}
    for lmbda, path in paths.items():
        export_safetensors(codec, path, {"distortion": "mse", "lmbda": str(lmbda)})
    return paths


def curve(name: str, rates: dict[str, float], *, step: int = 1) -> RateCurve:
    """The curve above, of images whose rates are scaled by the given factors."""
    points = []
    for bpp, psnr in list(zip(BPP, PSNR, strict=True))[::step]:
        points.append(RatePoint(f"{psnr}", {image: Quality(factor * bpp, psnr, 0.95) for image, factor in rates.items()}))
    return RateCurve(name, "method", tuple(points))


def write_run(
    study: Path, name: str, images: dict[str, tuple[float, float]], checkpoint: Path | str, *, steps: int, **model: object
) -> None:
    """Writes a run from bpp and PSNR of each image; its base needs 0.1 bpp more."""
    run = study / name
    (run / IMAGES).mkdir(parents=True)
    rounding = {"class_path": "sga.refinement.rounding.CosineRounding"}
    config = {"model": {"rounding": rounding, "checkpoint": str(checkpoint), "steps": steps, **model}, "seed": 0}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for image, (bpp, psnr_db) in images.items():
        refined = Quality(bpp, psnr_db, 1 - 10 ** (-psnr_db / 20))
        losses = {"rd_loss": 1.0, "rd_loss_base": 1.0}
        result = ImageResult(
            image=image,
            height=512,
            width=768,
            method="cosine",
            steps=steps,
            distortion="mse",
            lmbda=float(str(model.get("lmbda", points.model(str(checkpoint)).lmbda))),
            bpp_estimated=bpp,
            best_step=steps,
            seconds=1.0,
            **losses,
            base=dataclasses.replace(refined, bpp=bpp + 0.1),
            refined=refined,
        )
        write_result(run, result, {"source": f"sha of {image}", "fingerprint": "x"})


@pytest.fixture
def study(tmp_path: Path, checkpoints: dict[float, Path]) -> Path:
    for number, lmbda in enumerate(LMBDAS):
        images = {f"kodim{i:02d}": (BPP[number] * (1 + i / 10), PSNR[number] - i / 10) for i in range(1, 25)}
        write_run(tmp_path, f"cos_lmbda{lmbda}", images, checkpoints[lmbda], steps=20)
    return tmp_path


def test_a_rate_scaled_by_four_fifths_is_20_percent() -> None:
    assert bd_rate.bd_rate(BPP, PSNR, 0.8 * BPP, PSNR) == pytest.approx(-20)
    assert bd_rate.bd_quality(BPP, PSNR, BPP, PSNR + 0.5) == pytest.approx(0.5)
    # Of other points on the same straight line of PSNR over log rate, only what both reach counts.
    long, short = np.geomspace(0.1, 1.6, 5), np.geomspace(0.2, 1.2, 4)
    assert bd_rate.bd_rate(long, 30 + 5 * np.log2(long), 1.1 * short, 30 + 5 * np.log2(short)) == pytest.approx(10)


def test_the_bd_of_means_and_the_mean_of_bds() -> None:
    # Image "a" needs 10 times the bits of "b" and saves 20 % of them; "b" saves 50 %.
    anchor, test = curve("anchor", {"a": 10, "b": 1}), curve("test", {"a": 8, "b": 0.5})
    bd = bd_rate.compare(anchor, test, "psnr_db", samples=200)
    assert bd.rate == pytest.approx(100 * (8.5 / 11 - 1)) and bd.rate_of_images == pytest.approx(-35)
    assert bd.images == ("a", "b") and bd.images_with_rate == 2
    assert bd.overlap_db == (28.0, 36.2) and bd.overlap == 1
    # Samples are "a" alone, "b" alone, or both.
    assert bd.rate_interval == pytest.approx((-50, -20))
    assert bd_rate.compare(anchor, test, "psnr_db", samples=200) == bd
    assert bd_rate.compare(anchor, test, "psnr_db", samples=5, seed=1).rate == bd.rate


def test_only_images_of_both_curves_count_and_one_has_no_interval() -> None:
    bd = bd_rate.compare(curve("anchor", {"a": 1, "b": 3}), curve("test", {"a": 0.8, "c": 3}), "psnr_db", samples=10)
    assert bd.images == ("a",) and bd.rate == pytest.approx(-20) and bd.rate_interval is None


@pytest.mark.parametrize(
    ("bpp", "psnr", "reason"),
    [
        (BPP[:3], PSNR[:3], "4 points"),
        (BPP, PSNR + 20, "no quality in common: 28.00 to 36.20 dB against 48.00 to 56.20 dB"),
        (BPP, PSNR[::-1], "does not rise"),
        (BPP, np.append(PSNR[:4], np.inf), "does not rise"),
    ],
)
def test_what_has_no_bd_rate_is_refused(bpp: np.ndarray, psnr: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bd_rate.bd_rate(BPP, PSNR, bpp, psnr)


def test_curves_without_a_bd_are_named_with_the_reason() -> None:
    found, left_out = bd_rate.pairs(
        [curve("one", {"a": 1}), curve("short", {"a": 1}, step=2), curve("other", {"b": 1})], "psnr_db", 5
    )
    assert not found and len(left_out) == 2
    assert left_out[0].startswith("a BD-rate needs 4 points, and short has 3: refine")
    assert left_out[1] == "other against one: no image with PSNR in common"


def test_runs_that_differ_in_checkpoint_form_a_curve(study: Path, checkpoints: dict[float, Path]) -> None:
    write_run(study, "cos_to_0.05", {"kodim01": (2.0, 38.0)}, checkpoints[0.013], steps=20, lmbda=0.05)
    write_run(study, "unrefined", {"kodim01": (0.6, 32.0)}, checkpoints[0.013], steps=0)
    curves = {curve.name: curve for curve in study_curves(read_study(study))}
    assert {name: len(curve.points) for name, curve in curves.items()} == {"base": 4, "cos": 4, "cos, one model": 2}
    assert curves["base"].kind == "base" and curves["cos"].kind == "method"
    bpp, psnr = curves["cos"].means(["kodim01", "kodim03"], "psnr_db")
    assert bpp == pytest.approx(1.2 * BPP[:4]) and psnr == pytest.approx(PSNR[:4] - 0.2)
    assert curves["base"].means(["kodim01"], "psnr_db")[0] == pytest.approx(1.1 * BPP[:4] + 0.1)
    # Another setting is another curve.
    write_run(study, "long", {"kodim01": (0.5, 33.0)}, checkpoints[0.013], steps=99)
    assert {curve.name for curve in study_curves(read_study(study))} == {*curves, "long"}


def test_runs_of_one_model_of_variable_rate_form_a_curve_as_its_bases_do(study: Path, checkpoints: dict[float, Path]) -> None:
    for number, lmbda in enumerate(LMBDAS):
        write_run(study, f"vbr_{lmbda}", {"kodim01": (BPP[number], PSNR[number])}, EMBEDDED, steps=20, lmbda=lmbda)
    curves = {curve.name: curve for curve in study_curves(read_study(study))}
    base = curves["base, bmshj2018-hyperprior for MSE, embedded"]
    assert base.means(["kodim01"], "psnr_db") == (pytest.approx(BPP[:4] + 0.1), pytest.approx(PSNR[:4]))
    assert [point.label for point in base.points] == [f"lambda {lmbda}" for lmbda in LMBDAS]
    refined = curves["vbr"]
    assert refined.means(["kodim01"], "psnr_db") == (pytest.approx(BPP[:4]), pytest.approx(PSNR[:4]))
    assert len(curves["base, bmshj2018-hyperprior for MSE"].points) == len(curves["cos"].points) == 4


def test_another_photograph_of_a_name_is_refused(study: Path) -> None:
    path = study / "cos_lmbda0.013" / IMAGES / "kodim05.json"
    path.write_text(path.read_text().replace("sha of", "sha not of"))
    with pytest.raises(ValueError, match="kodim05 is not the same photograph"):
        study_curves(read_study(study))


def test_figures_and_tables_of_a_study(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = rd_curves.section(read_study(study), Options(tmp_path / "report"))
    assert [drawing.files[0].name for drawing in section.drawings] == ["rd_psnr_db.png", "rd_ms_ssim.png"]
    assert all(path.stat().st_size for drawing in section.drawings for path in drawing.files)
    with section.drawings[0].files[2].open() as file:
        rows = list(csv.DictReader(file))
    published = published_points("bmshj2018-hyperprior", "mse")
    drawn = [float(row["PSNR dB"]) for row in rows if row["curve"].startswith("CompressAI")]
    assert drawn == [point.psnr_db for point in published]
    assert {"base", "cos"} <= {row["curve"] for row in rows} and sum(row["curve"] == "cos" for row in rows) == 4
    with section.drawings[1].files[2].open() as file:
        quality = [float(row["MS-SSIM dB"]) for row in csv.DictReader(file) if row["curve"] == "cos"]
    means = [1 - np.mean([10 ** (-(psnr - i / 10) / 20) for i in range(1, 25)]) for psnr in PSNR[:4]]
    assert quality == pytest.approx([-10 * math.log10(1 - mean) for mean in means])
    monkeypatch.setattr(bd_tables, "pairs", partial(bd_rate.pairs, samples=20))
    (table, _, published) = bd_tables.section(read_study(study), Options(tmp_path / "report")).tables
    assert table.rows[0][:2] == ("cos", "base") and table.rows[0][2].startswith("-")
    assert (tmp_path / "report/tables/bd_psnr_db.csv").is_file()
    assert [row[0] for row in published.rows if row[1] == "this study"] == ["cos", "base"]


def test_published_codecs_have_the_bd_rates_that_are_known_of_them(study: Path, checkpoints: dict[float, Path]) -> None:
    found = {name: rate for name, _, rate, _, _ in published_rates.rates(read_study(study))[0]}
    # Of CompressAI's full-precision points.
    known = {"VTM": -23.4, "HM": -3.5, "mbt2018-mean": -6.8}
    assert {name: found[name] for name in known} == pytest.approx(known, abs=0.35)
    # A study whose points are the published ones at 0.9 of the bits.
    known_points = published_points("bmshj2018-hyperprior", "mse")[1:5]
    for lmbda, point in zip(LMBDAS, known_points, strict=True):
        images = {f"kodim{i:02d}": (0.9 * point.bpp, point.psnr_db) for i in range(1, 25)}
        write_run(study, f"less_{lmbda}", images, EMBEDDED, steps=20, lmbda=lmbda)
    rows = {name: row for name, *row in published_rates.rates(read_study(study))[0]}
    assert rows["less"] == ["this study", pytest.approx(-10, abs=0.2), known_points[0].psnr_db, known_points[-1].psnr_db]


def test_a_study_of_other_photographs_is_not_held_against_published_points(study: Path) -> None:
    for path in study.glob(f"*/{IMAGES}/kodim07.json"):
        path.unlink()
    with pytest.raises(ValueError, match="Kodak's 24 photographs"):
        published_rates.rates(read_study(study))


def test_compressai_reads_the_json_of_a_study(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compressai_json.main([str(study), "-o", str(tmp_path / "json")]) == 0
    path = tmp_path / "json/cos.json"
    assert str(path) in capsys.readouterr().out
    content = json.loads(path.read_text())
    assert set(content) == {"name", "description", "results"} and set(content["results"]) == {"bpp", "psnr-rgb", "ms-ssim-rgb"}
    curve = next(curve for curve in study_curves(read_study(study)) if curve.name == "cos")
    for metric, plotted in (("psnr_db", "psnr"), ("ms_ssim", "ms-ssim")):
        bpp, quality = curve.means(shared([curve], metric), metric)
        read = parse_json_file(path, plotted)
        assert read["name"] == "cos" and read["xs"] == pytest.approx(bpp) and read["ys"] == pytest.approx(quality)


def test_no_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compressai_json.main([str(tmp_path), "-o", str(tmp_path / "json")])
    assert stop.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("codec", classical.CODECS, ids=lambda codec: codec.name)
def test_classical_files_decode_and_more_bytes_are_better(codec: classical.ClassicalCodec, photograph: Tensor) -> None:
    reason = classical.missing(codec)
    if reason is not None:
        pytest.skip(reason)
    image = photograph[:, 60:240, 150:330]
    rows = [classical.measure(codec, image, quality) for quality in codec.qualities[1::4]]
    for metric in ("bytes", "psnr_db", "ms_ssim"):
        values = [row.row[metric] for row in rows]
        assert values == sorted(values) and len(set(values)) == len(values)
    assert rows[0].measured.psnr_db > 20 and rows[0].measured.bpp == 8 * rows[0].bytes / 180**2


def test_measurements_go_on_where_they_were(photograph: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(photograph[:, 100:148, 200:248], tmp_path / "photos.png")
    command = ["--root", str(tmp_path / "photos.png"), "-o", str(tmp_path / "classical"), "--codecs", "JPEG 4:2:0", "WebP"]
    assert classical.main(command) == 0
    table = (tmp_path / "classical/results.csv").read_text()
    assert len(table.splitlines()) == 1 + sum(len(codec.qualities) for codec in classical.CODECS if codec.name in command)
    calls: list[str] = []
    monkeypatch.setattr(classical, "measure", lambda codec, image, quality: calls.append(codec.name))
    assert classical.main(command) == 0 and not calls
    assert (tmp_path / "classical/results.csv").read_text() == table
    # Other settings are measured anew, and nothing else is.
    monkeypatch.undo()
    codec = dataclasses.replace(classical.CODECS[2], settings={"method": 0}, qualities=(10,))
    monkeypatch.setattr(classical, "CODECS", (classical.CODECS[0], codec))
    assert classical.main(command) == 0
    rows = json.loads((tmp_path / "classical/results.json").read_text())
    assert [row["quality"] for row in rows if row["settings"] == "method 0"] == [10]
    # Another photograph of this name is refused, and what was measured stays.
    write_image(photograph[:, 200:248, 200:248], tmp_path / "photos.png")
    with pytest.raises(SystemExit) as stop:
        classical.main(command)
    assert stop.value.code == 2 and json.loads((tmp_path / "classical/results.json").read_text()) == rows


def test_a_codec_that_refuses_an_image_leaves_the_others_and_the_other_images(
    photograph: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_image(photograph[:, :8, :8].repeat(1, 1, 2050), photos / "long.png")  # WebP has sides of up to 16383 pixels
    write_image(photograph[:, :8, :8], photos / "small.png")
    few = [dataclasses.replace(codec, qualities=(20, 80)) for codec in (classical.CODECS[2], classical.CODECS[0])]
    monkeypatch.setattr(classical, "CODECS", few)
    with pytest.raises(SystemExit) as stop:
        classical.main(["--root", str(photos), "-o", str(tmp_path / "classical")])
    assert stop.value.code == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("failed: long: WebP of quality 20 refuses the image") and "1 of 2 images" in last
    rows = json.loads((tmp_path / "classical/results.json").read_text())
    measured = [(row["image"], row["codec"]) for row in rows]
    assert measured == [("long", "JPEG 4:2:0")] * 2 + [("small", "WebP")] * 2 + [("small", "JPEG 4:2:0")] * 2


def test_a_codec_whose_package_is_missing_is_left_out(
    photograph: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(photograph[:, 100:120, 200:220], tmp_path / "photo.png")
    jpeg = dataclasses.replace(classical.CODECS[0], qualities=(50,))
    monkeypatch.setattr(classical, "CODECS", (jpeg, dataclasses.replace(jpeg, name="Absent", package="no_such_package")))
    assert classical.main(["--root", str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Absent is left out") and "1 rows" in printed[-1]


def test_classical_results_of_photographs_that_a_study_no_longer_has_do_not_count(photograph: Tensor, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, left in (("kept", 200), ("gone", 220)):
        write_image(photograph[:, 100:108, left : left + 8], photos / f"{name}.png")
    command = ["--root", str(photos), "-o", str(tmp_path / "classical"), "--codecs", "JPEG 4:2:0"]
    assert classical.main(command) == 0
    (alone,) = points.classical_curves(tmp_path / "classical", {})
    assert alone.points[0].images.keys() == {"gone", "kept"}
    (curve,) = points.classical_curves(tmp_path / "classical", {"kept": sha256_of(photos / "kept.png")})
    assert curve.points[0].images.keys() == {"kept"}
