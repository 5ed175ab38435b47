"""``refine.py`` where something is in the way: another job, another's folder, too little memory, an odd name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import refine
from reports.__main__ import main as report
from sga import photograph as photograph_module
from sga.images import write_image
from sga.runs.claims import Claims

Main = Callable[[list[str]], int]


@pytest.fixture
def folder(tmp_path: Path, crop: Tensor) -> Path:
    root = tmp_path / "photographs"
    root.mkdir()
    for i in range(3):
        write_image(crop.roll(i, -1), root / f"{i}.png")
    return root


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    given = ["--data.root", str(folder), "--output", str(output), "--model.steps=2", "--trainer.accelerator=cpu"]
    return ["--config=fast", *given, *more]


def refused(main: Main, words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The last line on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == code
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", [torch.cuda.OutOfMemoryError, MemoryError])
def test_an_image_that_memory_is_too_small_for_is_reported_and_the_others_go_on(
    kind: type[Exception], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    original = photograph_module.refine

    def refine_two(*more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise kind("no memory")
        return original(*more)

    monkeypatch.setattr(photograph_module, "refine", refine_two)
    assert "1 of 3 images are not finished" in refused(refine.main, arguments(folder, tmp_path / "run"), capsys, code=1)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["finished"] == 2 and list(summary["failures"]) == ["1"]
    assert "out of memory" in summary["failures"]["1"] and "--trainer.accelerator" in summary["failures"]["1"]


def test_the_tensors_of_a_failure_are_given_back(
    folder: Path, embedded: Any, crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    from sga.photograph import refine_photographs
    from sga.refinement.presets import preset

    held: list[weakref.ref[Tensor]] = []

    def no_memory(codec: Any, x: Tensor, *more: Any) -> Any:
        held.append(weakref.ref(x))
        raise MemoryError

    monkeypatch.setattr(photograph_module, "refine", no_memory)
    outcomes = refine_photographs(embedded, [crop, crop], embedded.objective(), preset("fast", 1))
    assert [type(outcome) for outcome in outcomes] == [MemoryError, MemoryError]
    assert len(held) == 3 and all(reference() is None for reference in held)


def test_images_of_another_process_are_left_to_it_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    (output / "images").mkdir(parents=True)
    other = Claims(output)
    assert other.take("1")
    line = refused(refine.main, arguments(folder, output), capsys, code=1)
    assert "1 of 3 images are not finished; another process is refining 1 of them" in line
    assert sorted(path.name for path in (output / "images").iterdir()) == ["0.json", "1.lock", "2.json"]
    assert not (output / "summary.json").exists()
    other.close()
    assert refine.main(arguments(folder, output)) == 0
    assert "2 of 3 images are finished" in capsys.readouterr().out
    assert json.loads((output / "summary.json").read_text())["finished"] == 3


def test_a_cut_bitstream_is_written_again(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert refine.main(arguments(folder, output)) == 0
    whole = (output / "bitstreams/1.bin").read_bytes()
    (output / "bitstreams/1.bin").write_bytes(whole[:-1])
    (output / "bitstreams_base/2.bin").unlink()
    assert refine.main(arguments(folder, output)) == 0
    assert (output / "bitstreams/1.bin").read_bytes() == whole and (output / "bitstreams_base/2.bin").is_file()


def test_a_name_of_dots_alone_stays_in_its_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "0.png").rename(folder / "...png")
    assert refine.main(arguments(folder / "...png", tmp_path / "run")) == 0
    assert [path.name for path in (tmp_path / "run/images").iterdir()] == ["__.json"]
    assert not list((tmp_path / "run").glob("events*")) and len(list((tmp_path / "run/tensorboard").iterdir())) == 2


def test_an_error_of_the_configuration_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ("--model.stepz=3", "--model.steps=many", "--model.rounding=nothing"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            refine.main(arguments(folder, tmp_path / "run", more))
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and line.startswith("error: ") and "refine.py --help lists the options" in line


def test_paths_of_other_places_are_refused_and_a_home_is_expanded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--output=s3://bucket/run"], ["--data.root=gs://bucket/photos"]):
        assert "is an address, not a path" in refused(refine.main, arguments(folder, tmp_path / "run", *words), capsys)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refine.main(arguments(folder, tmp_path / "x", "--output=~/run", "--data.root=~/photographs")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"photographs", "run"}


def test_a_report_does_not_replace_another_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine.main(arguments(folder, tmp_path / "run", "--data.limit=1", "--model.steps=0")) == 0
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("my home page")
    words = [str(tmp_path / "run"), "-o", str(tmp_path / "site")]
    assert "its index.html is not that of a report" in refused(report, words, capsys)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]
    (tmp_path / "site/index.html").unlink()
    assert report(words) == 0 and report(words) == 0
