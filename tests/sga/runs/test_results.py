from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from reports.runs import read_study
from reports.tables import Comparison, means_table
from sga.quality import ALWAYS, LATER, Quality
from sga.runs.results import COLUMNS, ImageResult, read_result, write_result
from sga.runs.summary import Means, summarise
from sga.runs.table import print_table
from tests.test_study_reports import RESULT, make_run

OF_THE_FIRST_VERSION = (
    *("image", "height", "width", "method", "steps", "lmbda", "distortion"),
    *("bpp_base", "psnr_db_base", "ms_ssim_base", "rd_loss_base", "bpp", "psnr_db", "ms_ssim", "rd_loss"),
    *("bpp_estimated", "best_step", "seconds"),
)
MEANS_OF_THE_FIRST_VERSION = (*OF_THE_FIRST_VERSION[7:16], "seconds")
WHOLE = replace(
    RESULT,
    refined=Quality(
        1.1, 31.0, 0.9, 10.0, psnr_y_db=32.0, encode_seconds=0.5, decode_seconds=0.25, kmacs_per_pixel=43.54, lpips=0.1
    ),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run that has begun."""
    (tmp_path / "images").mkdir()
    return tmp_path


def age(path: Path) -> None:
    """Takes from a result file what the first version did not write."""
    content = json.loads(path.read_text())
    kept = {key: value for key, value in content.items() if key in (*OF_THE_FIRST_VERSION, "fingerprint", "source")}
    path.write_text(json.dumps(kept))


def test_newer_columns_follow_those_of_the_first_version() -> None:
    assert COLUMNS[: len(OF_THE_FIRST_VERSION)] == OF_THE_FIRST_VERSION
    assert COLUMNS[len(OF_THE_FIRST_VERSION) :] == (*(f"{name}_base" for name in LATER), *LATER)
    assert {"ms_ssim_db", "psnr_y_db", "encode_seconds", "decode_seconds", "kmacs_per_pixel", "lpips"} == set(LATER)


def test_a_result_is_read_as_it_was_written(run: Path) -> None:
    write_result(run, WHOLE, {"fingerprint": "f"})
    found = read_result(run, "a")
    assert found is not None and found[0] == WHOLE and found[1]["fingerprint"] == "f"
    assert found[0].refined.encode_seconds == 0.5 and list(found[0].row) == list(COLUMNS)
    assert ImageResult.from_row(WHOLE.row) == WHOLE


def test_a_result_of_before_a_metric_is_finished(run: Path) -> None:
    write_result(run, WHOLE, {"fingerprint": "f"})
    path = run / "images/a.json"
    age(path)
    found = read_result(run, "a")
    assert found is not None and found[0].refined == Quality(1.1, 31.0, 0.9) and found[0].rd_loss == 1.8
    content = json.loads(path.read_text())
    for column in OF_THE_FIRST_VERSION:
        path.write_text(json.dumps({key: value for key, value in content.items() if key != column}))
        assert read_result(run, "a") is None, column
    for damage in ({"psnr_y_db": "32"}, {"lpips": True}, {"bpp_base": None}, {"ms_ssim": [0.9]}):
        path.write_text(json.dumps({**content, **damage}))
        assert read_result(run, "a") is None, damage


def test_means_leave_out_and_count_images_without_a_value(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, quality in (("a", WHOLE.refined), ("b", Quality(1.3, None, None)), ("c", Quality(1.2, 33.0, 0.8))):
        write_result(run, replace(WHOLE, image=name, refined=quality), {"fingerprint": "f"})
    summary = summarise(run, ["a", "b", "c", "d"], "f")
    means = summary["means"]
    assert (summary["images"], summary["finished"], summary["without_ms_ssim"]) == (4, 3, 1)
    assert tuple(means)[:10] == MEANS_OF_THE_FIRST_VERSION
    assert means["bpp"] == pytest.approx(1.2) and means["psnr_db"] == 32.0 and means["ms_ssim"] == pytest.approx(0.85)
    assert means["psnr_y_db"] == 32.0 and means["lpips"] == 0.1 and means["lpips_base"] is None
    assert summary["without"]["psnr_db"] == 1 and summary["without"]["lpips"] == 2 and summary["without"]["bpp"] == 0
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["psnr_y_db"] for row in rows] == ["32.0", "n/a", "n/a"] and rows[0]["kmacs_per_pixel"] == "43.54"
    print_table([], means)
    printed = capsys.readouterr().out
    assert "PSNR-Y dB" in printed and "decoder kMAC/pixel" in printed and "n/a" in printed
    infinite = Means(["psnr_db"])
    for value in (30.0, math.inf, None):
        infinite.add({"psnr_db": value})
    assert infinite.compute() == {"psnr_db": 30.0} and infinite.without(["psnr_db"]) == {"psnr_db": 2}


def test_reports_read_n_a_where_a_run_is_older_than_a_metric(tmp_path: Path) -> None:
    for name in ("new", "old"):
        run = make_run(tmp_path / name, {"a": 1.5, "b": 1.5})
        for image in ("a", "b"):
            quality = WHOLE.refined if image == "a" else replace(WHOLE.refined, lpips=None)
            write_result(run, replace(WHOLE, image=image, refined=quality), {"fingerprint": "f", "source": f"sha of {image}"})
    for path in (tmp_path / "old/images").iterdir():
        age(path)
    study = read_study(tmp_path)
    assert [run.damaged for run in study.runs] == [(), ()]
    table = means_table(Comparison(study.runs), "all")
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert (rows["new"]["PSNR-Y dB"], rows["new"]["LPIPS"], rows["new"]["MS-SSIM dB"]) == ("32.00", "0.1000", "10.00")
    assert (rows["old"]["PSNR-Y dB"], rows["old"]["LPIPS"], rows["old"]["PSNR dB"]) == ("n/a", "n/a", "31.00")
    assert rows["base"]["encode s"] == "n/a" and rows["new"]["encode s"] == "0.500"
    assert "Images without LPIPS, left out of its mean: 1 of new." in table.note
    data = dict(zip(table.data_columns, table.data[2], strict=True))
    assert data["run"] == "old" and data["LPIPS"] is None and data["PSNR dB"] == 31.0
    assert set(ALWAYS).isdisjoint(LATER)
