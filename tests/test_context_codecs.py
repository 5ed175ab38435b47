"""Codecs whose prior of a position depends on the positions before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressai.layers import GDN
from torch import Tensor, nn

from sga.codecs import Cheng2020AnchorCodec, Cheng2020AttentionCodec, Codec, ContextModelCodec, Latents
from sga.codecs.checkpoint import CheckpointError, load_codec, load_weights, model_hash
from sga.codecs.context_model import REACH, independent_fronts
from sga.codecs.export import export_compressai
from sga.refinement.noise import Noise
from sga.refinement.rounding import SigmoidScaledLogitRounding, UniformNoise, hard_round
from tests.conftest import random_codec

ADAPTERS = list(ContextModelCodec.adapters())


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.__name__)
def codec(request: pytest.FixtureRequest) -> ContextModelCodec:
    """With a context that tells: the prior of a position changes a lot with its neighbours."""
    codec = random_codec(request.param)
    assert isinstance(codec, ContextModelCodec)
    codec.net.context_prediction.weight *= 3
    return codec


def image(height: int = 64, width: int = 128) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def one_by_one(codec: ContextModelCodec, latents: Latents, z_hat: Tensor) -> Tensor:
    """y rounded position by position, the prior computed anew for each by CompressAI's own modules."""
    net = codec.net
    y_hat = torch.zeros_like(latents.y)
    for h in range(y_hat.shape[2]):
        for w in range(y_hat.shape[3]):
            parameters = net.entropy_parameters(torch.cat([net.h_s(z_hat), net.context_prediction(y_hat)], 1))
            means = parameters.chunk(2, 1)[1][:, :, h, w]
            y_hat[:, :, h, w] = torch.round(latents.y[:, :, h, w] - means) + means
    return y_hat


def test_hard_rounding_follows_the_recursion(codec: ContextModelCodec) -> None:
    latents = codec.analyse(torch.cat([image(), image().flip(-1)]))
    quantised = codec.quantise(latents, hard_round, hard_round)
    assert quantised.z_hat is not None and quantised.prior is not None and quantised.prior.means is not None
    torch.testing.assert_close(quantised.y_hat, one_by_one(codec, latents, quantised.z_hat), atol=1e-4, rtol=0)
    symbols = quantised.y_hat - quantised.prior.means
    torch.testing.assert_close(symbols, symbols.round(), atol=1e-4, rtol=0)
    assert symbols.abs().max() > 0.9 and quantised.prior.means.abs().max() > 0.1
    # Without the recursion it would be another result: means of the unrounded y round some positions elsewhere.
    at_once = hard_round(latents.y, codec.context_prior(codec.net.h_s(quantised.z_hat), latents.y).means)
    assert (at_once - quantised.y_hat).abs().max() > 1e-2


def test_a_position_changes_those_behind_it_alone(codec: ContextModelCodec) -> None:
    latents = codec.analyse(image())
    other = Latents(latents.y.clone(), latents.z)
    other.y[0, :, 1, 3] += 3
    before, after = (codec.quantise(value, hard_round, hard_round).y_hat for value in (latents, other))
    changed = (before != after).any(1)[0].flatten()
    first = latents.y.shape[-1] + 3
    assert not changed[:first].any() and changed[first] and changed[first + 1 :].any()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 4), (4, 12), (1, 1), (3, 2)])
def test_fronts_hold_every_position_behind_its_context(height: int, width: int) -> None:
    done: set[int] = set()
    for front in independent_fronts(height, width, torch.device("cpu")):
        for position in front.tolist():
            h, w = divmod(position, width)
            above = {(h - i, w + j) for i in range(1, REACH + 1) for j in range(-REACH, REACH + 1)}
            context = above | {(h, w - j) for j in range(1, REACH + 1)}
            assert {i * width + j for i, j in context if 0 <= i < height and 0 <= j < width} <= done
        assert done.isdisjoint(front.tolist())
        done |= set(front.tolist())
    assert done == set(range(height * width))


def test_training_takes_its_context_from_the_noisy_latents(codec: ContextModelCodec) -> None:
    latents, noise = codec.analyse(image()), Noise([0])
    codec.train()
    quantised = codec.quantise(latents, lambda value, offset: UniformNoise()(value, offset, 1.0, noise))
    assert quantised.prior is not None and quantised.prior.means is not None
    assert 0.4 < (quantised.y_hat - latents.y).abs().max() <= 0.5
    net = codec.net
    parameters = net.entropy_parameters(torch.cat([net.h_s(quantised.z_hat), net.context_prediction(quantised.y_hat)], 1))
    scales, means = parameters.chunk(2, 1)
    torch.testing.assert_close(quantised.prior.scales, scales)
    torch.testing.assert_close(quantised.prior.means, means)


def test_a_relaxed_rounding_ends_in_the_hard_one_and_moves_with_the_means(codec: ContextModelCodec) -> None:
    latents = codec.analyse(image()).map(lambda value: value.requires_grad_())
    rounding, noise = SigmoidScaledLogitRounding(), Noise([0])

    def nearly_hard(value: Tensor, offset: Tensor | None) -> Tensor:
        # z is rounded hard, or another z would have other means.
        return rounding(value, offset, 1e-3, noise) if offset is not None and offset.shape == value.shape else soft(value, offset)

    def soft(value: Tensor, offset: Tensor | None) -> Tensor:
        return value + (hard_round(value, offset) - value).detach()

    hard = codec.quantise(latents, hard_round, hard_round).y_hat.detach()
    quantised = codec.quantise(latents, nearly_hard)
    close = (quantised.y_hat.detach() - hard).abs() < 1e-3
    assert close.float().mean() > 0.99  # all but values in the middle between two symbols
    # A position that is all but rounded stays a symbol away from its mean, which z moves.
    assert latents.z is not None
    (gradient,) = torch.autograd.grad(quantised.y_hat[close].sum(), latents.z)
    assert gradient.abs().max() > 1e-4


def test_the_estimate_is_the_string(codec: ContextModelCodec) -> None:
    """With scales that fit the latents, as training finds them."""
    latents = codec.analyse(image(256, 256))
    spread = float(latents.y.std())
    last = codec.net.entropy_parameters[-1]
    last.bias[: codec.net.M] = spread
    last.weight[: codec.net.M] *= 0.1
    quantised = codec.quantise(latents, hard_round, hard_round)
    string_y, _ = codec.encode(quantised)
    assert 8 * len(string_y) == pytest.approx(float(codec.bits(quantised).y), rel=0.01, abs=32)


def test_weights_behind_the_mask_make_no_other_model(codec: ContextModelCodec, tmp_path: Path) -> None:
    net = type(codec.net).from_state_dict(codec.net.state_dict())
    context = net.context_prediction
    context.weight.data += (1 - context.mask) * 0.5  # an optimiser leaves them so
    torch.save({"state_dict": net.state_dict()}, tmp_path / "model.pth")
    loaded = load_codec(tmp_path / "model.pth")
    assert loaded.model_hash == model_hash(codec)
    assert not (context.weight == loaded.codec.net.context_prediction.weight).all()
    training = type(codec).from_state(codec.net.state_dict())
    assert training is not None
    load_weights(training, tmp_path / "model.pth")
    assert torch.equal(training.net.context_prediction.weight, codec.net.context_prediction.weight)


@pytest.mark.parametrize("adapter", [Cheng2020AnchorCodec, Cheng2020AttentionCodec])
def test_anchor_and_attention_start_from_each_other(adapter: type[Codec], tmp_path: Path) -> None:
    (other,) = {Cheng2020AnchorCodec, Cheng2020AttentionCodec} - {adapter}
    export_compressai(random_codec(other), tmp_path / "other.pth")
    codec = adapter(N=8)  # type: ignore[call-arg]
    new = load_weights(codec, tmp_path / "other.pth")
    blocks = {".".join(name.split(".")[:2]) for name in new}
    assert blocks == ({"g_a.3", "g_a.8", "g_s.0", "g_s.5"} if adapter is Cheng2020AttentionCodec else set())
    # Without its attention blocks, one is the other.
    theirs = random_codec(other).net
    for name in ("g_a", "g_s"):
        mine, its = (
            [block for block in getattr(net, name) if type(block).__name__ != "AttentionBlock"] for net in (codec.net, theirs)
        )
        x = torch.rand(1, 3 if name == "g_a" else 8, 64, 64)
        torch.testing.assert_close(nn.Sequential(*mine)(x), nn.Sequential(*its)(x))
    assert torch.equal(codec.net.entropy_parameters[0].weight, theirs.entropy_parameters[0].weight)
    export_compressai(random_codec(ContextModelCodec), tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        load_weights(codec, tmp_path / "foreign.pth")


def test_transforms_are_those_of_compressai_in_training_too(codec: ContextModelCodec) -> None:
    original = type(codec.net).from_state_dict(codec.net.state_dict())
    codec.to(memory_format=torch.channels_last)
    gradients = []
    for net, x in ((codec.net, image().contiguous(memory_format=torch.channels_last)), (original, image())):
        net.g_a.requires_grad_()
        net.g_a(x).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.g_a.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


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
