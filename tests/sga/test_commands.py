from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import codec
from sga import commands
from sga.images import read_image, write_image
from sga.measures import psnr_db
from tests.conftest import ONE_RATE


@pytest.fixture
def photo(tmp_path: Path, photograph: Tensor) -> Path:
    path = tmp_path / "photo.png"
    write_image(photograph[:, 100:163, 200:265], path)
    return path


@pytest.fixture
def file(photo: Path) -> Path:
    path = photo.with_suffix(".bin")
    assert codec.main(["encode", str(photo), "-o", str(path), "--steps=0"]) == 0
    return path


def test_a_photograph_goes_into_a_file_and_back(photo: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    back = photo.with_name("back.png")
    assert codec.main(["decode", str(file), "-o", str(back)]) == 0
    assert psnr_db(read_image(photo), read_image(back)) > 25
    assert codec.main(["info", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "65 x 63" in printed and str(file.stat().st_size) in printed and "this checkpoint" in printed


def test_refining_gives_a_better_file(photo: Path, file: Path) -> None:
    refined = photo.with_name("refined.bin")
    assert codec.main(["encode", str(photo), "-o", str(refined), "--steps=40"]) == 0
    losses = []
    for path in (file, refined):
        codec.main(["decode", str(path), "-o", str(photo.with_name("back.png"))])
        mse = (read_image(photo).double() - read_image(photo.with_name("back.png")).double()).square().mean().item()
        losses.append(0.013 * mse + 8 * path.stat().st_size / (63 * 65))
    assert losses[1] < losses[0]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        codec.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_does_not_decode_leaves_no_image(file: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.png"
    data = file.read_bytes()
    bad = tmp_path / "bad.bin"
    for content, message in (
        (data[:-3], "truncated"),
        (data[:5], "truncated"),
        (b"", "not a file of this codec"),
        (photo.read_bytes(), "not a file of this codec"),
        (data[:40] + bytes([data[40] ^ 1]) + data[41:], "damaged"),
        (data[:11] + bytes([data[11] ^ 1]) + data[12:], "damaged"),
    ):
        bad.write_bytes(content)
        line = refused(["decode", str(bad), "-o", str(out)], capsys)
        assert message in line and "bad.bin" in line
    assert "none.bin: no such file" in refused(["decode", str(tmp_path / "none.bin"), "-o", str(out)], capsys)
    other = tmp_path / "other.pth.tar"
    codec.main(["export", "embedded", "-o", str(other)])
    state = torch.load(other, weights_only=True)
    state["state_dict"]["g_s.0.bias"] += 0.01
    torch.save(state, other)
    assert "written with model" in refused(["decode", str(file), "-o", str(out), "--checkpoint", str(other)], capsys)
    assert not out.exists()


def test_a_file_that_is_not_there_is_named_without_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nothing.sga"
    assert (
        refused(["decode", str(missing), "-o", str(tmp_path / "a.png")], capsys) == f"error: {missing}: no such file or directory"
    )


def test_what_is_no_photograph_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, text = tmp_path / "out.bin", tmp_path / "text.png"
    text.write_text("no picture")
    assert "cannot read" in refused(["encode", str(text), "-o", str(out)], capsys)
    assert "cannot read" in refused(["encode", str(tmp_path / "none.png"), "-o", str(out)], capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "this machine"),
        (MemoryError(), "this machine"),
        (torch.OutOfMemoryError("CUDA out of memory"), "the device"),
    ],
)
def test_too_little_memory_is_one_line_and_leaves_no_file(
    error: Exception, where: str, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sga.photograph.refine", failing)
    line = refused(["encode", str(photo), "-o", str(photo.with_suffix(".sga"))], capsys)
    assert line.startswith(f"error: out of memory: {where} has too little")
    assert sorted(path.name for path in photo.parent.iterdir()) == ["photo.png"]


def test_an_unknown_error_keeps_its_traceback(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("sga.photograph.refine", failing)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        codec.main(["encode", str(photo), "-o", str(photo.with_suffix(".sga"))])


def test_an_output_that_cannot_be_is_refused_before_any_work(
    photo: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = photo.read_bytes()
    for arguments, message in (
        (["encode", str(photo), "-o", str(photo)], "is the input"),
        (["encode", str(photo), "-o", str(tmp_path)], "is a folder"),
        (["encode", str(photo), "-o", str(tmp_path / "none/out.bin")], "its folder does not exist"),
        (["decode", str(file), "-o", str(tmp_path / "out")], "without loss, as .png .bmp"),
        (["decode", str(file), "-o", str(tmp_path / "out.jpg")], "without loss, as .png .bmp"),
        (["export", "embedded", "-o", str(tmp_path / "none/out.pth")], "its folder does not exist"),
    ):
        assert message in refused(arguments, capsys)
    assert photo.read_bytes() == before
    for lmbda in ("-1", "0", "nan"):
        with pytest.raises(SystemExit) as stop:
            codec.main(["encode", str(photo), "-o", str(tmp_path / "out.bin"), "--lmbda", lmbda])
        assert stop.value.code == 2


def test_an_exported_checkpoint_decodes_the_same_files(file: Path, photo: Path, tmp_path: Path) -> None:
    for name in ("copy.safetensors", "copy.pth.tar"):
        checkpoint, out = tmp_path / name, tmp_path / f"{name}.png"
        codec.main(["export", "embedded", "-o", str(checkpoint)])
        assert codec.main(["decode", str(file), "-o", str(out), "--checkpoint", str(checkpoint)]) == 0
        assert out.is_file()


def test_compressai_evaluates_an_exported_checkpoint(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from compressai.utils.eval_model.__main__ import main as evaluate

    checkpoint, images = tmp_path / "model.pth.tar", tmp_path / "images"
    images.mkdir()
    image = read_image(photo).repeat(1, 4, 4)[:, :192, :192]
    write_image(image, images / "photo.png")
    codec.main(["export", str(ONE_RATE), "-o", str(checkpoint)])
    capsys.readouterr()
    evaluate(["checkpoint", str(images), "-a", "bmshj2018-hyperprior", "-p", str(checkpoint), "--no-update"])
    printed = capsys.readouterr().out
    results = json.loads(printed[printed.index("{") :])["results"]
    assert 20 < results["psnr-rgb"][0] < 50 and 0 < results["bpp"][0] < 5


@pytest.mark.parametrize("job", ["train", "study", "report"])  # tests/test_readme.py looks at the help of refine.py
def test_the_help_of_a_job_names_the_command_as_it_was_called(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        commands.main([job, "--help"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith(f"usage: sga {job} ")


def test_an_output_is_a_regular_file_of_this_machine(photo: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifo = photo.with_name("fifo.png")
    os.mkfifo(fifo)
    for output, message in {
        str(fifo): "is a FIFO, not a regular file",
        "/dev/null": "is a device, not a regular file",
        "s3://bucket/out.png": "is an address",
    }.items():
        for command, given in (("encode", photo), ("decode", file), ("export", "embedded")):
            assert message in refused([command, str(given), "-o", output], capsys)
    assert fifo.is_fifo() and not Path("s3:").exists()


def test_a_home_in_a_path_is_expanded(photo: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photo.parent))
    assert codec.main(["decode", f"~/{file.name}", "--output=~/back.png"]) == 0
    assert photo.with_name("back.png").is_file() and not Path("~").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_failed_export_leaves_the_file_as_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / name
    path.write_bytes(b"good")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit):
        codec.main(["export", "embedded", "-o", str(path)])
    assert path.read_bytes() == b"good" and [each.name for each in tmp_path.iterdir()] == [name]
