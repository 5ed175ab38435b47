"""What the tests share: a small codec with random weights, the embedded one, and small pictures."""

from __future__ import annotations

import pytest
import torch
from skimage import data as photographs
from torch import Tensor

from lightning_modules.codecs import ScaleHyperpriorCodec
from lightning_modules.codecs.checkpoint import LoadedCodec, load_codec


@pytest.fixture
def small_codec() -> ScaleHyperpriorCodec:
    """Random weights, spread so that latents are not all zero; tables made."""
    torch.manual_seed(0)
    codec = ScaleHyperpriorCodec(N=8, M=12)
    with torch.no_grad():
        codec.net.g_a[6].weight *= 40
        codec.net.h_a[4].weight *= 10
        codec.net.entropy_bottleneck.quantiles[:, 0, 1] = torch.linspace(-0.4, 0.4, 8)
    codec.requires_grad_(False).eval()
    codec.make_tables()
    return codec


@pytest.fixture(scope="session")
def embedded() -> LoadedCodec:
    return load_codec("embedded")


@pytest.fixture(scope="session")
def photograph() -> Tensor:
    """uint8 [3, 512, 512]."""
    return torch.from_numpy(photographs.astronaut()).permute(2, 0, 1).contiguous()
