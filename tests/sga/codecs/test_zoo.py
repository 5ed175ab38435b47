from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from compressai.zoo import image

from sga.codecs import ScaleHyperpriorCodec, zoo
from sga.codecs.checkpoint import CheckpointError, model_hash
from sga.codecs.zoo import LMBDAS, zoo_model
from sga.files import sha256_of
from sga.loading import load_codec

NAME = "zoo:bmshj2018-hyperprior/mse/4"


class Executes:
    """Creates a file when its pickle is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads, empty; nothing can be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(zoo, "download", None)
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(path: Path, monkeypatch: pytest.MonkeyPatch, level: int = 4) -> Path:
    """Gives a file the name of its own checksum and that name to a model of the zoo."""
    named = path.rename(path.with_name(f"model-{sha256_of(path)[:8]}.pth.tar"))
    monkeypatch.setitem(image.model_urls["bmshj2018-hyperprior"]["mse"], level, f"https://nowhere.invalid/{named.name}")
    return named


@pytest.mark.parametrize("zipped", [True, False])
def test_a_planted_file_is_refused_and_not_executed(zipped: bool, cache: Path, tmp_path: Path) -> None:
    path, trace = zoo_model(NAME).path, tmp_path / "executed"
    assert path.parent == cache and path.name == "bmshj2018-hyperprior-4-de1b779c.pth.tar"
    torch.save({"state_dict": {}, "x": Executes(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"bmshj2018-hyperprior-4-de1b779c\.pth\.tar is not the published file.*delete it$"):
        load_codec(NAME)
    assert path.exists() and not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the planted file was none"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_the_right_checksum_is_not_executed_either(
    zipped: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "executed"
    torch.save({"x": Executes(trace)}, cache / "model", _use_new_zipfile_serialization=zipped)
    publish(cache / "model", monkeypatch)
    with pytest.raises(CheckpointError, match=r"holds more than weights, \w+\.mkdir"):
        load_codec(NAME)
    assert not trace.exists()


def test_a_published_file_loads_with_the_lambda_of_its_quality(
    cache: Path, small_codec: ScaleHyperpriorCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small_codec.net.state_dict(), cache / "model")
    publish(cache / "model", monkeypatch)
    loaded = load_codec(NAME)
    assert model_hash(loaded.codec) == model_hash(small_codec)
    assert (loaded.lmbda, loaded.distortion) == (LMBDAS["mse"][3], "mse") == (0.013, "mse")


def test_a_missing_file_is_downloaded_with_the_digits_of_its_name(
    cache: Path, small_codec: ScaleHyperpriorCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small_codec.net.state_dict(), tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:8]
    asked = []

    def download(url: str, path: Path, sha256: str, progress: object) -> None:
        asked.append((url, sha256))
        path.write_bytes(content)

    monkeypatch.setattr(zoo, "download", download)
    url = f"https://nowhere.invalid/model-{digits}.pth.tar"
    monkeypatch.setitem(image.model_urls["bmshj2018-hyperprior"]["mse"], 4, url)
    for _ in range(2):
        assert model_hash(load_codec(NAME).codec) == model_hash(small_codec)
    assert asked == [(url, digits)] and [path.name for path in cache.iterdir()] == [f"model-{digits}.pth.tar"]


def test_every_model_of_the_zoo_has_a_checksum_and_a_lambda() -> None:
    for architecture, metrics in image.model_urls.items():
        for metric, levels in metrics.items():
            for level in levels:
                model = zoo_model(f"zoo:{architecture}/{metric}/{level}")
                assert len(model.digits) == 8 and model.url.startswith("https://") and model.lmbda > 0


@pytest.mark.parametrize("name", ["zoo:", "zoo:nonsense/mse/1", "zoo:mbt2018/mse/9", "zoo:mbt2018/psnr/1", "zoo:mbt2018/mse/x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="expected zoo:ARCHITECTURE/METRIC/QUALITY"):
        zoo_model(name)
