from __future__ import annotations

import copy

import pytest
import torch
from compressai.layers import GDN
from torch import Tensor

from sga.codecs import (
    Cheng2020AttentionCodec,
    Codec,
    ScaleHyperpriorCodec,
)
from tests.conftest import random_codec, random_image


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_frozen_transforms_are_the_same_function(any_codec: Codec, dtype: torch.dtype, most: float) -> None:
    fast = any_codec.frozen(dtype)
    exact = copy.deepcopy(any_codec.net.g_s).double()

    def error() -> float:
        """Largest relative error of output and gradient at drawn latents."""
        y = torch.randn(1, any_codec.sizes["M"], 4, 8) * 3
        grads, outputs = [], []
        for synthesise, at in ((exact, y.double()), (fast.synthesise, y)):
            at.requires_grad_()
            x_hat = synthesise(at)
            grads.append(torch.autograd.grad(x_hat.square().mean(), at)[0])
            outputs.append(x_hat.detach())
        return max(float((slow - quick).norm() / slow.norm()) for slow, quick in (outputs, grads))

    # The best of three draws: in fp32 an activation of about 0 may be on either side of the kink of a ReLU.
    assert min(error() for _ in range(3)) < most
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_frozen_forward_gdn_has_the_right_gradient(small_codec: ScaleHyperpriorCodec) -> None:
    from sga.codecs.frozen import FrozenTransform

    x = random_image().requires_grad_()
    slow, quick = small_codec.net.g_a, FrozenTransform(small_codec.net.g_a, torch.float32)
    expected, found = (torch.autograd.grad(transform(x).square().sum(), x)[0] for transform in (slow, quick))
    assert (expected - found).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_frozen_inside(dtype: torch.dtype) -> None:
    fast = random_codec(Cheng2020AttentionCodec).frozen(dtype)
    layers = [module for module in fast.net.g_s.modules() if not list(module.children())]
    assert not any(isinstance(layer, GDN) for layer in layers)
    seen: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    fast.synthesise(torch.randn(1, 8, 4, 8))
    assert len(seen) > 40
    for output in seen:
        assert output.dtype == dtype and output.is_contiguous(memory_format=torch.channels_last)
