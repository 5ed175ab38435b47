"""What the tests share: a small codec with random weights, the embedded one, and small pictures."""

from __future__ import annotations

import pytest
import torch
from skimage import data as photographs
from torch import Tensor

from lightning_modules.codecs import Codec, ScaleHyperpriorCodec
from lightning_modules.codecs.checkpoint import LoadedCodec, load_codec


def random_codec(adapter: type[Codec]) -> Codec:
    """Random weights, spread so that latents are not all zero; tables made."""
    torch.manual_seed(0)
    codec = adapter(N=8, M=12)  # type: ignore[call-arg]
    with torch.no_grad():
        codec.net.g_a[6].weight *= 40
        if hasattr(codec.net, "h_a"):
            codec.net.h_a[4].weight *= 10
        for quantiles in codec.quantiles:
            quantiles[:, 0, 1] = torch.linspace(-0.4, 0.4, len(quantiles))
    codec.requires_grad_(False).eval()
    codec.make_tables()
    return codec


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
def photograph() -> Tensor:
    """uint8 [3, 512, 512]."""
    return torch.from_numpy(photographs.astronaut()).permute(2, 0, 1).contiguous()
