"""What the tests share: a small codec with random weights, the embedded one and another that ships, and small pictures."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

import pytest
import torch
from skimage import data as samples
from torch import Tensor, nn

from data.samples import sample_paths
from lightning_modules.quiet import MESSAGES
from sga.codecs import Codec, ScaleHyperpriorCodec
from sga.codecs.checkpoint import EMBEDDED_PATH
from sga.images import read_image, write_image
from sga.loading import LoadedCodec, load_codec

ONE_RATE = EMBEDDED_PATH.with_name("scale_hyperprior_mse_lmbda0.013.safetensors")
"""The checkpoint of one rate that ships, which was the embedded one before."""


def pytest_configure(config: pytest.Config) -> None:
    """Lets warnings of libraries pass that the commands do not show; any other fails its test."""
    of_tiny = (
        ".* coded bits per pixel, .* estimated",  # further apart in tiny pictures than in photographs
        "The number of training batches .* is smaller than the logging interval",
    )
    for message in (*MESSAGES, *of_tiny):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


def random_codec(adapter: type[Codec]) -> Codec:
    """Random weights, spread so that latents are not all zero; tables made."""
    torch.manual_seed(0)
    sizes = {"N": 8, "M": 12}
    codec = adapter(**{name: size for name, size in sizes.items() if name in signature(adapter).parameters})
    last = [layer for layer in codec.net.g_a if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight *= 40
        if hasattr(codec.net, "h_a"):
            codec.net.h_a[4].weight *= 10
        for quantiles in codec.quantiles:
            quantiles[:, 0, 1] = torch.linspace(-0.4, 0.4, len(quantiles))
    codec.requires_grad_(False).eval()
    codec.make_tables()
    return codec


def random_image(height: int = 64, width: int = 128) -> Tensor:
    """Noise, fp32 [1, 3, H, W] in [0, 1]; the same at each call."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def without_times(row: dict[str, str]) -> dict[str, str]:
    """A row of ``results.csv`` without what no two runs share."""
    return {name: value for name, value in row.items() if "seconds" not in name}


@pytest.fixture
def small_codec() -> ScaleHyperpriorCodec:
    codec = random_codec(ScaleHyperpriorCodec)
    assert isinstance(codec, ScaleHyperpriorCodec)
    return codec


@pytest.fixture(params=list(Codec.adapters()), ids=lambda adapter: adapter.__name__)
def any_codec(request: pytest.FixtureRequest) -> Codec:
    """Every codec of the project in turn."""
    return random_codec(request.param)


@pytest.fixture(scope="session")
def embedded() -> LoadedCodec:
    return load_codec("embedded")


@pytest.fixture(scope="session")
def one_rate() -> LoadedCodec:
    """The shipped scale hyperprior of one rate, lambda 0.013."""
    return load_codec(ONE_RATE)


@pytest.fixture(scope="session")
def photograph() -> Tensor:
    """uint8 [3, 512, 512]."""
    return torch.from_numpy(samples.astronaut()).permute(2, 0, 1).contiguous()


@pytest.fixture
def crop(photograph: Tensor) -> Tensor:
    """uint8 [3, 64, 64], a piece of the photograph."""
    return photograph[:, 100:164, 200:264]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photographs; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("photographs")
    for path in sample_paths()[:2]:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture that has an MS-SSIM and one that is too small for it; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("pictures")
    image = read_image(sample_paths()[0])
    write_image(image[:, 60:230, 150:320], folder / "large.png")
    write_image(image[:, 100:140, 200:270], folder / "small.png")
    return folder
