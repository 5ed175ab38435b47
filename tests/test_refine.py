from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import refine
from data.folders import LONGEST_NAME
from sga import photograph as photograph_module
from sga.bitstream import decode_image
from sga.codecs.checkpoint import EMBEDDED_PATH
from sga.images import pad, read_image, to_float, write_image
from sga.loading import LoadedCodec
from sga.measures import psnr_db
from sga.rate_distortion import Objective
from tests.conftest import ONE_RATE, without_times

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs/refine").glob("*.yaml"))
COLUMNS = (
    "image,height,width,method,steps,lmbda,distortion,bpp_base,psnr_db_base,ms_ssim_base,rd_loss_base,"
    "bpp,psnr_db,ms_ssim,rd_loss,bpp_estimated,best_step,seconds,"
)


@pytest.fixture
def folder(tmp_path: Path, photograph: Tensor) -> Path:
    root = tmp_path / "photographs"
    root.mkdir()
    write_image(photograph[:, 100:263, 200:370], root / "large.png")
    write_image(photograph[:, 100:140, 200:250], root / "small.png")
    return root


def run(folder: Path, output: Path, *more: str, config: str = "ssl") -> int:
    return refine.main(
        [
            *("--config", str(ROOT / f"configs/refine/{config}.yaml"), "--data.root", str(folder), "--output", str(output)),
            *("--model.steps=15", "--model.evaluate_every=5", "--model.precision=fp32", "--trainer.accelerator=cpu", *more),
        ]
    )


def rows(output: Path) -> Iterator[dict[str, str]]:
    with (output / "results.csv").open() as file:
        yield from csv.DictReader(file)


def test_a_run_leaves_files_that_decode_and_the_numbers_of_those_files(
    folder: Path, tmp_path: Path, one_rate: LoadedCodec, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(folder, output, "--compare=large", f"--model.checkpoint={ONE_RATE}") == 0
    assert (output / "results.csv").read_text().splitlines()[0].startswith(COLUMNS)
    assert (output / "config.yaml").is_file() and (output / "comparison.png").is_file()
    assert [row["image"] for row in rows(output)] == ["large", "small"]
    for row in rows(output):
        original = read_image(folder / f"{row['image']}.png")
        pixels = int(row["height"]) * int(row["width"])
        assert original.shape == (3, int(row["height"]), int(row["width"]))
        for suffix, kind in (("", "bitstreams"), ("_base", "bitstreams_base")):
            data = (output / kind / f"{row['image']}.bin").read_bytes()
            decoded = decode_image(one_rate, data)
            bpp, psnr = 8 * len(data) / pixels, psnr_db(original, decoded)
            assert float(row[f"bpp{suffix}"]) == pytest.approx(bpp)
            assert float(row[f"psnr_db{suffix}"]) == pytest.approx(psnr)
            loss = Objective(0.013).loss(torch.tensor(bpp), torch.tensor(10 ** (-psnr / 10))).item()
            assert float(row[f"rd_loss{suffix}"]) == pytest.approx(loss)
        assert torch.equal(
            decode_image(one_rate, (output / f"bitstreams/{row['image']}.bin").read_bytes()),
            read_image(output / f"reconstructions/{row['image']}.png"),
        )
        assert float(row["rd_loss"]) < float(row["rd_loss_base"])
        assert row["method"] == "sigmoid_scaled_logit" and row["steps"] == "15"
        assert list((output / "tensorboard" / row["image"]).glob("events.*"))
    assert next(rows(output))["ms_ssim"] != "n/a" and list(rows(output))[1]["ms_ssim"] == "n/a"
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["images"], summary["finished"], summary["without_ms_ssim"]) == (2, 2, 1)
    mean = sum(float(row["rd_loss"]) for row in rows(output)) / 2
    assert summary["means"]["rd_loss"] == pytest.approx(mean)
    printed = capsys.readouterr().out
    assert "mean" in printed and "tensorboard --logdir" in printed and "comparison.png" in printed


def test_a_damaged_image_is_reported_and_the_others_go_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    output = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        run(folder, output)
    assert stop.value.code == 1
    assert [row["image"] for row in rows(output)] == ["large", "small"]
    assert "broken.png" in json.loads((output / "summary.json").read_text())["failures"]["broken"]
    assert "failed: broken" in capsys.readouterr().err
    # Mended, a rerun does what is left and no more.
    before = (output / "images/large.json").stat().st_mtime_ns
    write_image(read_image(folder / "small.png"), folder / "broken.png")
    assert run(folder, output) == 0
    assert "2 of 3 images are finished" in capsys.readouterr().out
    assert (output / "images/large.json").stat().st_mtime_ns == before
    assert [row["image"] for row in rows(output)] == ["broken", "large", "small"]
    assert json.loads((output / "summary.json").read_text())["failures"] == {}


def test_results_of_other_settings_are_not_mixed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert run(folder, output, "--data.limit=1") == 0
    with pytest.raises(SystemExit) as stop:
        run(folder, output, "--model.lmbda=0.05")
    assert stop.value.code == 2
    assert "results of other settings (--model.lmbda)" in capsys.readouterr().err
    for result in (output / "images").iterdir():
        result.unlink()
    with pytest.raises(SystemExit):
        run(folder, output, "--model.lmbda=0.05")
    error = capsys.readouterr().err
    assert "other settings (--model.lmbda), without results yet" in error and "delete the folder" in error


def test_names_are_as_long_as_a_file_system_allows_and_no_longer(folder: Path, tmp_path: Path) -> None:
    longest, too_long = "l" * LONGEST_NAME, "m" * (LONGEST_NAME + 1)
    for old, new in (("small", longest), ("large", too_long)):
        (folder / f"{old}.png").rename(folder / f"{new}.png")
    output = tmp_path / "run"
    assert run(folder, output, "--model.steps=0") == 0
    shortened = f"{'m' * (LONGEST_NAME - 9)}_{zlib.crc32(too_long.encode()):08x}"
    assert [row["image"] for row in rows(output)] == [longest, shortened]


def test_batches_and_seeds(folder: Path, tmp_path: Path, photograph: Tensor) -> None:
    write_image(photograph[:, 300:340, 200:250], folder / "tiny.png")  # the padded size of small.png
    assert run(folder, tmp_path / "alone") == 0
    assert run(folder, tmp_path / "again") == 0
    assert run(folder, tmp_path / "batch", "--data.batch_size=2") == 0
    for alone, again, batch in zip(*(rows(tmp_path / name) for name in ("alone", "again", "batch")), strict=True):
        assert without_times(alone) == without_times(again)
        assert float(batch["rd_loss"]) == pytest.approx(float(alone["rd_loss"]), rel=5e-3)
    files = [(tmp_path / name / "bitstreams/small.bin").read_bytes() for name in ("alone", "again")]
    assert files[0] == files[1]


def test_the_result_of_another_image_of_the_same_name_is_not_reused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(folder, output) == 0
    write_image(read_image(folder / "small.png").flip(-1), folder / "small.png")
    with pytest.raises(SystemExit) as stop:
        run(folder, output)
    assert stop.value.code == 2 and "result of another image small" in capsys.readouterr().err


def test_runs_inside_their_folder_of_images_do_not_refine_their_pictures(folder: Path) -> None:
    (folder / "large.png").rename(folder / "small.base.png")
    figures = folder / "report/figures"
    figures.mkdir(parents=True)
    (figures / "crops.png").write_bytes((folder / "small.png").read_bytes())
    (folder / "report/index.html").touch()
    for output in ("run", "other/run", "run"):
        assert run(folder, folder / output, "--compare=small") == 0
        assert [row["image"] for row in rows(folder / output)] == ["small.base", "small"]
        assert len(list((folder / output).glob("bitstreams*/*.bin"))) == 4


@pytest.mark.parametrize("output", ["", "run"])
def test_a_folder_of_images_that_is_a_run_is_refused(output: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, folder / "run", "--data.limit=1") == 0
    with pytest.raises(SystemExit) as stop:
        run(folder / output, folder / output, "--data.limit=1")
    assert stop.value.code == 2 and "the folder of the" in capsys.readouterr().err


def test_an_image_that_fails_does_not_take_its_batch_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Tensor
) -> None:
    for i in range(3):
        write_image(photograph[:, 300 + i : 340 + i, 200:250], folder / f"tiny{i}.png")

    def refine_few(codec: Any, x: Tensor, *more: Any) -> Any:
        if len(x) > 2 or any(torch.equal(image, bad) for image in x):
            raise RuntimeError("out of memory")
        return original(codec, x, *more)

    original = photograph_module.refine
    bad = pad(to_float(read_image(folder / "tiny1.png")), 64)
    monkeypatch.setattr(photograph_module, "refine", refine_few)
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", "--data.batch_size=8")
    assert stop.value.code == 1
    assert [row["image"] for row in rows(tmp_path / "run")] == ["large", "small", "tiny0", "tiny2"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["failures"] == {"tiny1": "RuntimeError: out of memory"}


def test_weights_count_and_not_where_they_lie(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(EMBEDDED_PATH.read_bytes())
    assert run(folder, tmp_path / "run", "--data.limit=1") == 0
    assert run(folder, tmp_path / "run", "--data.limit=1", f"--model.checkpoint={copy}") == 0
    assert "1 of 1 images are finished" in capsys.readouterr().out


def test_latents_that_diverge_are_a_failure_and_not_a_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", "--model.learning_rate=1e30", "--model.select=last", "--data.limit=1")
    assert stop.value.code == 1
    assert "diverged" in json.loads((tmp_path / "run/summary.json").read_text())["failures"]["large"]


def test_towards_ms_ssim_an_image_that_is_too_small_fails_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", "--model.distortion=ms_ssim", "--model.lmbda=17", "--model.steps=8")
    assert stop.value.code == 1
    (row,) = rows(tmp_path / "run")
    assert row["image"] == "large" and row["distortion"] == "ms_ssim" and float(row["rd_loss"]) < float(row["rd_loss_base"])
    assert float(row["rd_loss"]) == pytest.approx(float(row["bpp"]) + 17 * (1 - float(row["ms_ssim"])), rel=1e-4)
    assert "MS-SSIM" in json.loads((tmp_path / "run/summary.json").read_text())["failures"]["small"]


def test_a_precision_of_the_trainer_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", "--trainer.precision=bf16-mixed")
    assert stop.value.code == 2 and "--model.precision" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("--trainer.max_epochs=3", "--model.steps"),
        ("--trainer.gradient_clip_val=0.5", "Adam"),
        ("--trainer.logger=true", "RUN/tensorboard"),
        ("--trainer.inference_mode=true", "needs gradients"),
        ("--trainer.val_check_interval=2", "nothing is trained"),
    ],
)
def test_an_option_without_effect_is_refused_by_name(
    option: str, instead: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(photographs, tmp_path / "run", option)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{option.split('=', maxsplit=1)[0]} has no effect here: " in line and instead in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_runs(config: Path, folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "run", "--data.limit=1", "--model.steps=2", config=config.stem) == 0
    (row,) = rows(tmp_path / "run")
    if "select: last" in config.read_text():
        assert int(row["best_step"]) == 2
    else:
        assert float(row["rd_loss"]) <= float(row["rd_loss_base"]) + 1e-6


def ramp(option: str, start: float, end: float) -> str:
    setting = {"class_path": "sga.refinement.schedules.Ramp", "init_args": {"start": start, "end": end}}
    return f"--model.{option}={json.dumps(setting)}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.root=missing"], "no such folder of images: missing"),
        (["--model.checkpoint=missing.pth"], "no such checkpoint: missing.pth"),
        (["--model.steps=-1"], "model.steps must be at least 0"),
        (["--model.rounding.init_args.a=0"], "a must be above 0"),
        (["--data.batch_size=0"], "must be at least 1"),
        (["--compare=nobody"], "no such image"),
        (["--model.distortion=ms_ssim"], "do not compare: give a lambda (lmbda) with the distortion ms_ssim; --model.lmbda LAMBDA"),
        (["--model.lmbda=-1"], "model.lmbda must be above 0"),
        (["--model.learning_rate_z=-1"], "model.learning_rate_z must be above 0"),
        ([ramp("temperature", 0.0, 1.0)], "model.temperature must be above 0 at every step, and is 0 at step 0"),
        ([ramp("temperature", 0.5, -0.5)], "a ramp goes between finite numbers of at least 0"),
        ([ramp("learning_rate_factor", 0.0, 1.0)], "model.learning_rate_factor must be above 0 at every step"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
