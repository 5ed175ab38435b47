from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from lightning_modules.callbacks import file_evaluation
from sga.bitstream import decode_image
from sga.codecs import ScaleHyperpriorCodec
from sga.images import read_image
from sga.loading import coding_copy, load_codec
from sga.measures import ms_ssim, psnr_db
from sga.quality import Quality
from sga.rate_distortion import Objective
from tests.training import arguments, weights

OBJECTIVE = Objective(0.013)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    train.main(arguments(pictures, output, "--data.valid", str(pictures)))
    return output


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def command(run: Path, pictures: Path, *more: str) -> list[str]:
    config = ["--config", str(run / "config.yaml"), "--data.test", str(pictures), "--output", str(run)]
    return ["test", *config, *more]


def test_what_is_reported_is_of_files_that_decode(run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (run / "config.yaml").read_text()
    assert train.main(command(run, pictures)) == 0
    assert (run / "config.yaml").read_text() == settings
    loaded = load_codec(run / "best.ckpt")
    with (run / "test/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["large", "small"]
    for row in rows:
        original = read_image(pictures / f"{row['image']}.png")
        data = (run / f"test/bitstreams/{row['image']}.bin").read_bytes()
        decoded = decode_image(loaded, data)  # the checkpoint's own tables, not those of the process that wrote it
        assert (int(row["height"]), int(row["width"])) == decoded.shape[1:] == original.shape[1:]
        assert float(row["bpp"]) == pytest.approx(8 * len(data) / original[0].numel())
        assert float(row["psnr_db"]) == pytest.approx(psnr_db(original, decoded))
        assert float(row["rd_loss"]) == pytest.approx(Quality(float(row["bpp"]), float(row["psnr_db"]), None).loss(OBJECTIVE))
        assert float(row["bpp_estimated"]) > 0
    expected = ms_ssim(read_image(pictures / "large.png"), decode_image(loaded, (run / "test/bitstreams/large.bin").read_bytes()))
    assert rows[1]["ms_ssim"] == "n/a" and float(rows[0]["ms_ssim"]) == pytest.approx(expected)

    summary = json.loads((run / "test/summary.json").read_text())
    means = summary["means"]
    for name in ("bpp", "bpp_estimated", "psnr_db", "rd_loss"):
        assert means[name] == pytest.approx(sum(float(row[name]) for row in rows) / 2)
    assert (summary["images"], summary["without_ms_ssim"], summary["lmbda"]) == (2, 1, 0.013)
    assert summary["checkpoint"] == str(run / "best.ckpt") and 0 < summary["step"] <= 6
    of_means = Quality(means["bpp"], means["psnr_db"], None).loss(OBJECTIVE)
    assert of_means is not None and summary["rd_loss_of_means"] == pytest.approx(of_means)
    assert summary["gap_percent"] is None and summary["published"] is None
    printed = capsys.readouterr().out
    assert "mean" in printed and "n/a" in printed and "not compared with the published point" in printed

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    (event,) = events.Scalars("test/rd_loss")
    assert event.value == pytest.approx(means["rd_loss"]) and event.step == summary["step"]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(6))


def test_files_are_coded_in_fp32_whatever_the_precision(run: Path, pictures: Path) -> None:
    files = []
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        train.main(command(run, pictures, f"--trainer.precision={precision}"))
        files.append({path.name: path.read_bytes() for path in (run / "test/bitstreams").iterdir()})
    assert files[0].keys() == {"large.bin", "small.bin"} and files[0] == files[1] == files[2]


def test_without_a_best_checkpoint_the_last_is_tested(run: Path, pictures: Path) -> None:
    (run / "best.ckpt").unlink()
    train.main(command(run, pictures))
    assert json.loads((run / "test/summary.json").read_text())["checkpoint"] == str(run / "last.ckpt")


def test_a_codec_in_training_gets_no_tables_and_keeps_its_medians(run: Path) -> None:
    torch.manual_seed(0)
    codec = ScaleHyperpriorCodec(N=8, M=12).to(memory_format=torch.channels_last)
    own = {key.removeprefix("codec."): value for key, value in weights(run / "last.ckpt").items() if key.startswith("codec.")}
    codec.load_state_dict(own)
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    prepared = coding_copy(codec, 0.013, "mse")
    assert prepared.model_hash == load_codec(run / "last.ckpt").model_hash
    assert all(torch.equal(value, before[name]) for name, value in codec.state_dict().items())
    assert codec.training and all(parameter.requires_grad for parameter in codec.parameters())


def test_an_image_too_small_for_ms_ssim_is_coded_and_counted(trained: Path, pictures: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    content = torch.load(run / "best.ckpt", weights_only=True)
    content["hyper_parameters"] |= {"distortion": "ms_ssim", "lmbda": 16.64}
    torch.save(content, run / "best.ckpt")
    train.main(command(run, pictures))
    summary = json.loads((run / "test/summary.json").read_text())
    assert (summary["images"], summary["without_ms_ssim"], summary["distortion"]) == (2, 1, "ms_ssim")
    with (run / "test/results.csv").open() as file:
        large, small = csv.DictReader(file)
    assert small["rd_loss"] == small["ms_ssim"] == "n/a" and float(small["bpp"]) > 0
    assert float(large["rd_loss"]) == pytest.approx(float(large["bpp"]) + 16.64 * (1 - float(large["ms_ssim"])))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output=elsewhere"], "elsewhere holds neither best.ckpt nor last.ckpt"),
        (["--model.codec.init_args.N=16"], "the checkpoint is of"),
        (["--data.test=nowhere"], "no such folder of images: nowhere"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    more: list[str], message: str, run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([*command(run, pictures), *more])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:.*it is left out")
def test_an_image_that_cannot_be_read_is_reported_and_the_others_are_tested(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "some"))
    (folder / "damaged.png").write_bytes((folder / "large.png").read_bytes()[:3000])
    with pytest.raises(SystemExit) as stop:
        train.main(command(run, folder))
    assert stop.value.code == 1
    assert "1 images could not be tested: damaged" in capsys.readouterr().err
    with (run / "test/results.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["large", "small"]


def test_validate_measures_the_trained_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    best = min(event.value for event in events.Scalars("valid/rd_loss"))
    capsys.readouterr()
    assert train.main(["validate", "--config", str(run / "config.yaml"), "--output", str(run)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "valid/rd_loss " in line)
    assert float(line.split("│")[2]) == pytest.approx(best, rel=1e-4)


def test_a_test_deletes_its_own_files_alone_and_once_the_new_ones_exist(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.main(command(run, pictures)) == 0
    test, fewer = run / "test", tmp_path / "fewer"
    fewer.mkdir()
    shutil.copy(pictures / "small.png", fewer)
    foreign = [test / "bitstreams/mine.bin", test / "notes.csv", test / "notes.json"]
    for path in foreign:
        path.write_text("mine")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(file_evaluation, "write_evaluation", _stop)
        train.main(command(run, fewer))
    assert (test / "bitstreams/large.bin").is_file() and len((test / "results.csv").read_text().splitlines()) == 3
    assert train.main(command(run, fewer)) == 0
    assert sorted(path.name for path in (test / "bitstreams").iterdir()) == ["mine.bin", "small.bin"]
    assert all(path.read_text() == "mine" for path in foreign)


def _stop(*_: object) -> None:
    raise RuntimeError("stopped")
