from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch import Tensor

import refine
import study
from lightning_modules.callbacks.refinement_curves import ImageCurves
from sga.images import write_image

ROOT = Path(__file__).parents[1]
SHORT = ("--model.precision=fp32", "--trainer.accelerator=cpu")


@pytest.fixture
def folder(tmp_path: Path, photograph: Tensor) -> Path:
    root = tmp_path / "photographs"
    root.mkdir()
    write_image(photograph[:, 100:164, 200:264], root / "a.png")
    write_image(photograph[:, 150:214, 200:264], root / "b.png")
    return root


def write_study(tmp_path: Path, runs: dict[str, Any], common: dict[str, Any] | None = None) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"common": common or {}, "runs": runs}, sort_keys=False))
    return str(path)


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def hparams(run: Path) -> dict[str, Any]:
    content = events(run / "tensorboard").PluginTagToContent("hparams")
    values = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG]).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def test_a_study_is_a_folder_of_runs_that_several_processes_fill(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"steep": {"config": "ssl", "model.rounding.init_args.a": 5.0}, "sga": {"config": str(ROOT / "configs/refine/sga.yaml")}}
    output = tmp_path / "study"
    config = write_study(tmp_path, runs, {"model.steps": 500})
    command = ["--config", config, "--data.root", str(folder), "--output", str(output), "--model.steps=2", *SHORT]
    for shard in ("0/2", "1/2"):
        assert study.main([*command, f"--data.shard={shard}"]) == 0
    assert f"python -m reports {output} -o" in capsys.readouterr().out
    results = sorted(output.glob("*/images/*.json"))
    assert [path.relative_to(output).as_posix() for path in results] == [
        f"{run}/images/{image}.json" for run in ("sga", "steep") for image in ("a", "b")
    ]
    before = [path.stat().st_mtime_ns for path in results]
    assert study.main(command) == 0
    assert [path.stat().st_mtime_ns for path in results] == before

    # The table of runs in TensorBoard: one row per run, however often it was run, with its settings and its means.
    for name, method, a in (("steep", "sigmoid_scaled_logit", 5.0), ("sga", "atanh", None)):
        run = output / name
        assert len(list((run / "tensorboard").glob("events.*"))) == 1
        found = hparams(run)
        assert (found["method"], found["steps"], found.get("a"), found["lmbda"]) == (method, 2, a, 0.013)
        assert found["config"] == {"steep": "ssl", "sga": "sga"}[name]
        means = json.loads((run / "summary.json").read_text())["means"]
        scalars = events(run / "tensorboard")
        for metric in ("rd_loss", "bpp", "psnr_db", "seconds"):
            assert scalars.Scalars(f"mean/{metric}")[0].value == pytest.approx(means[metric])


def test_a_run_that_fails_is_named_and_the_others_go_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_study(tmp_path, {"broken": {}, "sound": {}}, {"config": "ssl", "model.steps": 0})
    (tmp_path / "study").mkdir()
    (tmp_path / "study/broken").write_text("in the way")
    assert study.main(["--config", config, "--data.root", str(folder), "--output", str(tmp_path / "study"), *SHORT]) == 1
    printed = capsys.readouterr()
    assert "is a file, not a folder" in printed.err and "failed: broken" in printed.err
    assert "1 of 2 runs are finished" in printed.out
    assert len(list((tmp_path / "study/sound/images").iterdir())) == 2


def test_an_interrupt_ends_the_study(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def interrupted(args: list[str]) -> int:
        started.append(args)
        raise SystemExit(130)

    monkeypatch.setattr(refine, "main", interrupted)
    config = write_study(tmp_path, {"one": {"config": "ssl"}, "two": {"config": "ssl"}})
    with pytest.raises(SystemExit) as stop:
        study.main(["--config", config, "--data.root", str(folder), "--output", str(tmp_path / "study")])
    assert stop.value.code == 130 and len(started) == 1


def test_a_dry_run_prints_the_commands_and_the_work(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_study(tmp_path, {"a": {"config": "ssl"}, "b": {"config": "sga", "model.steps": 7}})
    output = tmp_path / "study"
    assert study.main(["--config", config, "--data.root", str(folder), "--output", str(output), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        rf"python refine\.py --config \S*sga\.yaml --data\.root {folder} --output {output}/b .*--model\.steps=7", printed
    )
    assert "2 runs, 507 steps per image, 1014 image-steps" in printed
    assert not output.exists()


@pytest.mark.parametrize(
    ("runs", "arguments", "message"),
    [
        ({"sound": {"config": "ssl"}, "typo": {"config": "ssl", "model.stepz": 3}}, (), "run typo"),
        ({"typo": {"config": "nothing"}}, (), "run typo"),
        ({"typo": {"config": "ssl", "model.rounding.init_args.a": "steep"}}, (), "run typo"),
        ({"none": {}}, (), "run none names no config"),
        ({"a/b": {"config": "ssl"}}, (), "not good as the name of a folder"),
        ({"sound": {"config": "ssl"}}, ("--data.root=nowhere",), "no such folder of images: nowhere"),
        ([], (), "is no study"),
        ({}, (), "`runs:` names no run"),
        ({"sound": {"config": "ssl"}, "word": "sga"}, (), "run word needs options by their names"),
        ({"classical": {"config": "ssl"}}, (), "no run can have the name classical"),
        ({"astray": {"config": "ssl", "output": "elsewhere"}}, (), "run astray: output and data.root are those of the study"),
        ({"astray": {"config": "ssl", "data": {"root": "samples"}}}, (), "run astray: output and data.root"),
        (
            {"sound": {"config": "ssl"}, "back": {"config": "ssl", "model.steps": -3}},
            (),
            "run back: model.steps must be",
        ),
        (
            {"both": {"config": "ssl", "model.target_bpp": 0.5, "model.target_psnr": 32}},
            (),
            "run both: target_bpp and target_psnr",
        ),
        ({"flat": {"config": "ssl", "model.rounding.init_args.a": -1}}, (), "run flat: "),
        ({"lost": {"config": "ssl", "model.checkpoint": "missing.ckpt"}}, (), "run lost: no such checkpoint: missing.ckpt"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(
    runs: Any, arguments: tuple[str, ...], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "study"
    with pytest.raises(SystemExit) as stop:
        study.main(["--config", write_study(tmp_path, runs), "--data.root", str(folder), "--output", str(output), *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and message in error[0]
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("common: 5\nruns: {a: {config: ssl}}", "common needs options by their names, such as `{config: sga}`, not 5"),
        ("runs:\n  a: {config: ssl}\n  b: {config: sga}\n  a: {config: cosine}", "a is given twice"),
        ("runs: {0.1: {config: ssl}, '0.1': {config: sga}}", "0.1 is given twice"),
        ("runs: {a: {config: ssl, model.steps: 1, model.steps: 2}}", "model.steps is given twice"),
    ],
)
def test_a_study_file_that_is_wrong_is_one_line(
    content: str, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(SystemExit) as stop:
        study.main(["--config", str(path), "--data.root", str(folder), "--output", str(tmp_path / "study"), "--dry-run"])
    error = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(error) == 1 and str(path) in error[0] and message in error[0]


def test_the_curve_of_an_image_grows_while_it_is_refined(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def look(self: ImageCurves, image: Any) -> None:  # the image is finished, nothing else of it is written
        read = events(Path(self.writer.log_dir))
        tags = ("true/psnr_db", "relaxed/loss", "gap/rd_loss")
        seen[Path(self.writer.log_dir).name] = [[event.step for event in read.Scalars(tag)] for tag in tags]

    monkeypatch.setattr(ImageCurves, "finish", look)
    options = ("--model.steps=4", "--model.evaluate_every=2", "--data.batch_size=2", *SHORT)
    config = str(ROOT / "configs/refine/ssl.yaml")
    assert refine.main(["--config", config, "--data.root", str(folder), "--output", str(tmp_path / "run"), *options]) == 0
    assert seen == {name: [[0, 2, 4], [0, 2], [0, 2]] for name in ("a", "b")}


def test_a_study_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    monkeypatch.setattr(study, "read_plan", lambda config, *_: plans.append(config) or [])
    monkeypatch.chdir(tmp_path)
    assert study.main(["--config", "methods", "--output", "study", "--dry-run"]) == 0
    assert plans == [ROOT / "configs/studies/methods.yaml"]
    with pytest.raises(SystemExit):
        study.main(["--config", "nothing", "--output", "study"])
    assert "a name of configs/studies: classes fast" in capsys.readouterr().err
