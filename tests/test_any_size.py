"""Every codec on images whose sides are no multiples of any stride, through refine.py and train.py test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent
from torch import Tensor

import refine
import train
from sga.bitstream import decode_image
from sga.codecs import Codec
from sga.codecs.export import export_safetensors
from sga.images import read_image, write_image
from sga.loading import load_codec
from sga.measures import psnr_db
from tests.training import ROOT, arguments


def scalars(folder: Path, tag: str) -> list[ScalarEvent]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return list(events.Scalars(tag))


@pytest.fixture
def photo(photograph: Tensor, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(photograph[:, 100:187, 200:301], folder / "odd.png")
    return folder


def test_a_refined_file_is_what_was_refined(any_codec: Codec, photo: Path, tmp_path: Path) -> None:
    export_safetensors(any_codec, tmp_path / "model.safetensors", {"lmbda": "0.013"})
    checkpoint = ("--model.checkpoint", str(tmp_path / "model.safetensors"))
    config = ("--config", str(ROOT / "configs/refine/ssl.yaml"), "--model.steps=3", "--trainer.accelerator=cpu")
    paths = ("--data.root", str(photo), "--output", str(tmp_path / "run"))
    assert refine.main([*config, *checkpoint, *paths]) == 0
    result = json.loads((tmp_path / "run/images/odd.json").read_text())
    # Other latents than the refined ones would decode to another picture.
    refined = [event.value for event in scalars(tmp_path / "run/tensorboard/odd", "true/psnr_db")]
    assert min(abs(result["psnr_db"] - value) for value in refined) < 0.02


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "configs/train").glob("*.yaml")))
def test_a_tested_file_is_what_was_validated(preset: str, photo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = ("--config", str(ROOT / f"configs/train/{preset}.yaml"), "--data.valid", str(photo))
    fit = arguments(photo, run, "--trainer.max_steps=2")
    if preset.startswith("cheng2020"):
        fit.remove("--model.codec.init_args.M=12")
    train.main([fit[0], *config, *fit[3:]])
    train.main(["test", "--config", str(run / "config.yaml"), "--data.test", str(photo), "--output", str(run)])
    tested = json.loads((run / "test/summary.json").read_text())["means"]
    assert tested["psnr_db"] == pytest.approx(scalars(run / "tensorboard", "valid/psnr_db")[-1].value, abs=0.02)
    decoded = decode_image(load_codec(run / "best.ckpt"), (run / "test/bitstreams/odd.bin").read_bytes())
    assert psnr_db(read_image(photo / "odd.png"), decoded) == pytest.approx(tested["psnr_db"])
