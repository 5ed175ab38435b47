from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_modules.callbacks.image_means import QualityMeans
from sga import perceptual
from sga.codecs import Codec, FactorisedPriorCodec
from sga.coding import code_image
from sga.complexity import kmacs_per_pixel
from sga.images import pad, to_float
from sga.loading import LoadedCodec
from sga.measures import Coding, luma_psnr_db, ms_ssim, psnr_db
from sga.perceptual import lpips_distance
from sga.photograph import encode_photograph
from sga.quality import ALWAYS, LATER, METRICS, Quality, present
from sga.rate_distortion import Objective
from sga.refinement.rounding import hard_round
from tests.conftest import random_codec

ROOT = Path(__file__).parents[2]
GREY = torch.full((3, 4, 8), 100, dtype=torch.uint8)


def noisy(photograph: Tensor) -> Tensor:
    return (photograph.float() + 20 * torch.randn(photograph.shape)).clamp(0, 255).to(torch.uint8)


def test_psnr_is_of_eight_bit_pixels() -> None:
    assert psnr_db(GREY, GREY + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_db(GREY, GREY) == math.inf


def test_psnr_of_luma_weighs_the_colours() -> None:
    # A grey step is a step of luma; one of a single colour counts by its weight in BT.601.
    assert luma_psnr_db(GREY, GREY + 1) == pytest.approx(20 * math.log10(255))
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        other = GREY.clone()
        other[channel] += 10
        assert luma_psnr_db(GREY, other) == pytest.approx(20 * math.log10(255 / (10 * weight)))
    assert luma_psnr_db(GREY, GREY) == math.inf


def test_ms_ssim_leaves_small_images_out(photograph: Tensor) -> None:
    other = noisy(photograph)
    assert ms_ssim(photograph, photograph) == pytest.approx(1.0)
    value = ms_ssim(photograph, other)
    assert value is not None and 0.5 < value < 0.99
    assert ms_ssim(photograph[:, :160], other[:, :160]) is None
    assert ms_ssim(photograph[:, :161, :161], other[:, :161, :161]) is not None
    means = QualityMeans()
    means.update(Quality.of(Coding(photograph[:, :50], other[:, :50], 0.0)))
    means.update(Quality.of(Coding(photograph, other, 0.0)))
    found = means.compute()
    assert found["ms_ssim"].item() == pytest.approx(value)
    assert found["ms_ssim_db"].item() == pytest.approx(-10 * math.log10(1 - value))
    assert dict(zip(METRICS, means.count.tolist(), strict=True))["ms_ssim"] == 1


def test_means_are_over_images_that_have_a_value() -> None:
    means = QualityMeans()
    for other, bits in ((GREY + 1, 64.0), (GREY + 10, 16.0), (GREY, 16.0)):
        means.update(Quality.of(Coding(GREY, other, bits)))
    found = {name: value.item() for name, value in means.compute().items()}
    psnr = (20 * math.log10(255) + 20 * math.log10(25.5)) / 2  # not of the mean error; the perfect image has none
    expected = {"bpp": 1.0, "psnr_db": psnr, "psnr_y_db": psnr, "without_psnr_db": 1, "without_ms_ssim": 3}
    assert found == pytest.approx(expected)
    assert present([1.0, None, math.inf, 3.0, math.nan]) == [1.0, 3.0]


def test_a_number_that_does_not_exist_is_none() -> None:
    perfect = Quality.of(Coding(GREY, GREY, 320))
    assert perfect == Quality(10.0, None, None) and perfect.mse == 0 and perfect.psnr_text == "perfect"
    assert METRICS["psnr_db"].text(perfect.psnr_db) == "n/a" and METRICS["psnr_db"].text(30.0) == "30.00"
    assert METRICS["psnr_db"].heading == "PSNR dB" and METRICS["ms_ssim"].heading == "MS-SSIM"


def test_the_loss_is_of_the_mse_and_else_of_the_psnr() -> None:
    objective = Objective(0.013)
    quality = Quality.of(Coding(GREY, GREY + 3, 16))
    assert quality.loss(objective) == 0.013 * 255**2 * (9 / 255**2) + 0.5
    assert replace(quality, mse=None).loss(objective) == pytest.approx(0.5 + 0.013 * 9, rel=1e-12)
    assert Quality(0.5, None, None).loss(objective) == 0.5
    assert Quality(0.5, 30.0, 0.9).loss(Objective(10.0, "ms_ssim")) == pytest.approx(1.5)
    assert quality.loss(Objective(10.0, "ms_ssim")) is None


def test_a_coded_image_has_every_number_of_its_file(embedded: LoadedCodec, photograph: Tensor) -> None:
    image = photograph[:, 100:265, 200:370]
    coded, bpp_estimated = encode_photograph(embedded, image)
    quality = coded.quality
    assert quality.bpp == 8 * len(coded.file) / (165 * 170) == pytest.approx(bpp_estimated, rel=0.05)
    assert quality.psnr_db == psnr_db(image, coded.image) and quality.psnr_y_db == luma_psnr_db(image, coded.image)
    assert quality.ms_ssim == ms_ssim(image, coded.image) and quality.ms_ssim is not None
    assert quality.ms_ssim_db == pytest.approx(-10 * math.log10(1 - quality.ms_ssim))
    assert quality.encode_seconds is not None and 0 < quality.encode_seconds < 60
    assert quality.decode_seconds is not None and 0 < quality.decode_seconds < 60
    assert quality.kmacs_per_pixel == 45.941
    assert replace(quality, encode_seconds=1e9, decode_seconds=None) == quality  # times tell no two files apart
    latents = embedded.codec.quantise(embedded.codec.analyse(pad(to_float(image), 64)[None]), hard_round, hard_round)
    some = code_image(embedded, latents, image, ("bpp", "psnr_db")).quality
    assert some == Quality(quality.bpp, quality.psnr_db, None)


def test_work_of_a_decoder_by_hand() -> None:
    # Four 5 x 5 transposed convolutions, at 1/16 to 1/2 of the side of the image, and three GDNs of one 1 x 1 convolution each.
    N, M = 128, 192
    convolutions = 25 * (M * N / 256 + N * N / 64 + N * N / 16 + N * 3 / 4)
    normalisations = N * N * (1 / 64 + 1 / 16 + 1 / 4)
    assert kmacs_per_pixel(FactorisedPriorCodec()) == pytest.approx((convolutions + normalisations) / 1000)


def test_counting_leaves_a_codec_as_it_is(any_codec: Codec) -> None:
    assert kmacs_per_pixel(any_codec) == kmacs_per_pixel(random_codec(type(any_codec))) > 0
    assert not any_codec.training and all(parameter.grad is None for parameter in any_codec.parameters())


def test_columns_of_older_files_may_lack_what_is_newer() -> None:
    quality = Quality(1.0, 30.0, None, psnr_y_db=31.0)
    row = quality.columns("_base")
    assert list(row) == [f"{name}_base" for name in METRICS] and Quality.from_columns(row, "_base") == quality
    old = {name: row[f"{name}_base"] for name in ALWAYS}
    assert Quality.from_columns(old) == Quality(1.0, 30.0, None)
    for name in ALWAYS:
        with pytest.raises(KeyError):
            Quality.from_columns({key: value for key, value in old.items() if key != name})
    for damaged in ({"bpp": None}, {"psnr_db": "30"}, {LATER[0]: [1]}):
        with pytest.raises(TypeError):
            Quality.from_columns({**old, **damaged})


@pytest.fixture
def forgotten() -> Iterator[None]:
    for cached in (perceptual._network, perceptual._unavailable):
        cached.cache_clear()
    yield
    for cached in (perceptual._network, perceptual._unavailable):
        cached.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_lpips_is_none_without_its_package(monkeypatch: pytest.MonkeyPatch, photograph: Tensor) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lpips_distance(photograph, photograph) is None


@pytest.mark.usefixtures("forgotten")
def test_lpips_without_weights_is_one_warning(monkeypatch: pytest.MonkeyPatch, photograph: Tensor, tmp_path: Path) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert [lpips_distance(photograph, photograph) for _ in range(3)] == [None] * 3
    (warning,) = found
    assert "LPIPS is n/a" in str(warning.message) and len(str(warning.message).splitlines()) == 1


class Difference(nn.Module):
    """Replaces the network, whose weights are not installed: mean absolute difference of its inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.shape == y.shape and x.dtype == torch.float32 and -1 <= float(x.min()) <= float(x.max()) <= 1
        return (x - y).abs().mean().view(1, 1, 1, 1)


def test_lpips_sees_pixels_from_minus_one_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "_network", Difference)
    black, white = torch.zeros(3, 40, 40, dtype=torch.uint8), torch.full((3, 40, 40), 255, dtype=torch.uint8)
    assert lpips_distance(black, white) == 2 and lpips_distance(white, white) == 0
    assert lpips_distance(black[:, :30], white[:, :30]) is None
    assert Quality.of(Coding(black, white, 8.0)).lpips == 2


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the metric of ``docs/extending.md``, put where the page says."""
    text = (ROOT / "docs/extending.md").read_text()
    section = next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith("A metric\n"))
    function, declaration = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    folder = tmp_path_factory.mktemp("extended")
    for name in ("sga", "lightning_modules", "data", "reports", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    shutil.copy(ROOT / "refine.py", folder)
    path = folder / "sga/quality.py"
    source = path.read_text()
    head, body = source.split("@dataclass(frozen=True)\nclass Quality:", 1)
    body = re.sub(r"(?=^    mse: )", declaration, body, count=1, flags=re.MULTILINE)
    path.write_text(f"{head}{function}\n\n@dataclass(frozen=True)\nclass Quality:{body}")
    return folder


def test_a_metric_is_added_in_one_place(extended: Path, pictures: Path, tmp_path: Path) -> None:
    def python(*words: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([sys.executable, *words], cwd=extended, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run, report = tmp_path / "run", tmp_path / "report"
    settings = ("--config", "fast", "--model.steps=1", "--trainer.accelerator=cpu")
    printed = python("refine.py", *settings, "--data.root", str(pictures), "--output", str(run))
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    errors = [float(row["mean_absolute_error"]) for row in rows]
    assert len(errors) == 2 and all(0.5 < error < 20 for error in errors)
    assert all(float(row["mean_absolute_error_base"]) > 0.5 for row in rows)
    assert json.loads((run / "images/large.json").read_text())["mean_absolute_error"] == errors[0]
    summary, mean = json.loads((run / "summary.json").read_text()), sum(errors) / 2
    assert summary["means"]["mean_absolute_error"] == pytest.approx(mean) and summary["without"]["mean_absolute_error"] == 0
    assert re.search(rf"MAE +[0-9.]+ +{mean:.3f} +lower", printed)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert events.Scalars("mean/mean_absolute_error")[0].value == pytest.approx(mean)
    # A run of before the metric stays finished, and reads n/a.
    for path in (run / "images").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in content.items() if not key.startswith("mean_absolute_error")}))
    again = python("refine.py", *settings, "--data.root", str(pictures), "--output", str(run))
    assert "2 of 2 images are finished" in again and re.search(r"MAE +n/a +n/a", again)
    python("-m", "reports", str(run), "-o", str(report))
    with next((report / "tables").glob("00_*.csv")).open() as file:
        assert [row["MAE"] for row in csv.DictReader(file)] == ["n/a", "n/a"]
