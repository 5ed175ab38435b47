"""Codecs whose prior of a position depends on the positions before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sga.codecs import ContextModelCodec, Latents
from sga.codecs.checkpoint import load_weights, model_hash
from sga.codecs.context_model import REACH, independent_fronts
from sga.loading import load_codec
from sga.refinement.noise import Noise
from sga.refinement.rounding import SigmoidScaledLogitRounding, UniformNoise, hard_round
from tests.conftest import random_codec, random_image

ADAPTERS = list(ContextModelCodec.adapters())


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.__name__)
def codec(request: pytest.FixtureRequest) -> ContextModelCodec:
    """A codec whose context model has large weights: the prior of a position changes a lot with its neighbours."""
    codec = random_codec(request.param)
    assert isinstance(codec, ContextModelCodec)
    codec.net.context_prediction.weight *= 3
    return codec


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
    latents = codec.analyse(torch.cat([random_image(), random_image().flip(-1)]))
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
    latents = codec.analyse(random_image())
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
    latents, noise = codec.analyse(random_image()), Noise([0])
    codec.train()

    def with_noise(value: Tensor, offset: Tensor | None) -> Tensor:
        return UniformNoise()(value, offset, 1.0, noise)

    quantised = codec.quantise(latents, with_noise, with_noise)
    assert quantised.prior is not None and quantised.prior.means is not None
    assert 0.4 < (quantised.y_hat - latents.y).abs().max() <= 0.5
    net = codec.net
    parameters = net.entropy_parameters(torch.cat([net.h_s(quantised.z_hat), net.context_prediction(quantised.y_hat)], 1))
    scales, means = parameters.chunk(2, 1)
    torch.testing.assert_close(quantised.prior.scales, scales)
    torch.testing.assert_close(quantised.prior.means, means)


def test_a_relaxed_rounding_ends_in_the_hard_one_and_moves_with_the_means(codec: ContextModelCodec) -> None:
    latents = codec.analyse(random_image()).map(lambda value: value.requires_grad_())
    rounding, noise = SigmoidScaledLogitRounding(), Noise([0])

    def nearly_hard(value: Tensor, offset: Tensor | None) -> Tensor:
        return rounding(value, offset, 1e-3, noise)

    def soft(value: Tensor, offset: Tensor | None) -> Tensor:
        return value + (hard_round(value, offset) - value).detach()

    hard = codec.quantise(latents, hard_round, hard_round).y_hat.detach()
    quantised = codec.quantise(latents, nearly_hard, soft)  # z is rounded hard, or another z would have other means
    close = (quantised.y_hat.detach() - hard).abs() < 1e-3
    assert close.float().mean() > 0.99  # all but values in the middle between two symbols
    # A position that is all but rounded stays a symbol away from its mean, which z moves.
    assert latents.z is not None
    (gradient,) = torch.autograd.grad(quantised.y_hat[close].sum(), latents.z)
    assert gradient.abs().max() > 1e-4


def test_the_estimate_is_the_string(codec: ContextModelCodec) -> None:
    """With scales that fit the latents, as training finds them."""
    latents = codec.analyse(random_image(256, 256))
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


def test_transforms_are_those_of_compressai_in_training_too(codec: ContextModelCodec) -> None:
    original = type(codec.net).from_state_dict(codec.net.state_dict())
    codec.to(memory_format=torch.channels_last)
    gradients = []
    for net, x in ((codec.net, random_image().contiguous(memory_format=torch.channels_last)), (original, random_image())):
        net.g_a.requires_grad_()
        net.g_a(x).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.g_a.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
