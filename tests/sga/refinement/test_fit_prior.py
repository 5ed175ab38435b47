from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sga.bitstream import Bitstream, BitstreamError, decode_image, encode_image
from sga.codecs import FactorisedPriorCodec, MeanScaleHyperpriorCodec, ScaleHyperpriorCodec
from sga.codecs.latents import Quantised
from sga.loading import LoadedCodec
from sga.refinement.fit_prior import adapt, fit
from sga.refinement.rounding import hard_round
from tests.conftest import random_codec


def correlated(codec: ScaleHyperpriorCodec, height: int = 256, width: int = 192) -> Quantised:
    """Latents of which channel 4 is a random walk, and channel 2 three times as wide as the model expects."""
    generator = torch.Generator().manual_seed(0)
    latents = codec.analyse(torch.rand(1, 3, height, width, generator=generator))
    with torch.no_grad():
        codec.net.h_s[4].bias[: latents.y.shape[1]] = 3  # scales of about 3 everywhere
    prior = codec.quantise(latents, hard_round, hard_round).prior
    assert prior is not None
    scales = prior.scales
    y = torch.zeros_like(latents.y)
    y[:, 4] = (scales[:, 4] * torch.randn(y[:, 4].shape, generator=generator)).cumsum(-1)
    y[:, 2] = 3 * scales[:, 2] * torch.randn(y[:, 2].shape, generator=generator)
    return codec.quantise(replace(latents, y=y if prior.means is None else y + prior.means), hard_round, hard_round)


@pytest.mark.parametrize("adapter", [ScaleHyperpriorCodec, MeanScaleHyperpriorCodec])
def test_what_is_predictable_costs_fewer_bits_and_decodes(adapter: type[ScaleHyperpriorCodec]) -> None:
    codec = random_codec(adapter)
    assert isinstance(codec, ScaleHyperpriorCodec)
    plain = correlated(codec)
    adapted = adapt(codec, plain)
    (found,) = adapted.adaptations
    assert found is not None
    assert 4 in found.channels and found.weights[found.channels.index(4)][0] > 10
    assert found.gains[2] > 0
    before, after = float(codec.bits(plain).total), float(codec.bits(adapted).total)
    assert after < 0.9 * before
    strings = codec.encode(adapted)
    assert len(strings) == 3 and strings[2] == found.to_bytes()
    assert 8 * sum(map(len, strings)) == pytest.approx(after, rel=0.02, abs=192)  # a string ends with some bytes of the coder
    assert sum(map(len, strings)) < sum(map(len, codec.encode(plain)))
    torch.testing.assert_close(codec.decode(strings, 256, 192), plain.y_hat, rtol=0, atol=1e-4)


def test_nothing_is_told_where_it_does_not_pay(small_codec: ScaleHyperpriorCodec) -> None:
    latents = small_codec.analyse(torch.zeros(1, 3, 64, 64))
    plain = small_codec.quantise(replace(latents, y=torch.zeros_like(latents.y)), hard_round, hard_round)
    assert adapt(small_codec, plain).adaptations == (None,)
    assert len(small_codec.encode(adapt(small_codec, plain))) == 2


def test_images_of_a_batch_have_their_own(small_codec: ScaleHyperpriorCodec) -> None:
    one = correlated(small_codec)
    assert one.z_hat is not None and one.prior is not None
    flat = torch.zeros_like(one.y_hat)
    prior = replace(one.prior, scales=one.prior.scales.repeat(2, 1, 1, 1))
    both = adapt(small_codec, Quantised(torch.cat([flat, one.y_hat]), one.z_hat.repeat(2, 1, 1, 1), prior))
    assert both.adaptations[1] == adapt(small_codec, one).adaptations[0]
    assert float(small_codec.bits(both).y[1]) == pytest.approx(float(small_codec.bits(adapt(small_codec, one)).y), rel=1e-5)


def test_the_gradient_reaches_neighbours_that_predict(small_codec: ScaleHyperpriorCodec) -> None:
    plain = correlated(small_codec)
    adaptation = fit(small_codec, plain)
    y = plain.y_hat.clone().requires_grad_()

    def bits(y: Tensor) -> Tensor:
        return small_codec.bits(replace(plain, y_hat=y, adaptations=(adaptation,))).y.sum()

    (gradient,) = torch.autograd.grad(bits(y), y)
    gradient[:, [c for c in range(12) if c != 4]] = 0  # of the channel that is predicted
    change = float((bits(y + 0.05 * gradient.sign()) - bits(y - 0.05 * gradient.sign())).detach()) / 0.1
    assert change == pytest.approx(float(gradient.abs().sum()), rel=0.02)


def test_a_codec_that_adapts_nothing_refuses_such_files() -> None:
    codec = random_codec(FactorisedPriorCodec)
    loaded = LoadedCodec(codec, 0.013, "mse", b"123456")
    quantised = codec.quantise(codec.analyse(torch.rand(1, 3, 64, 64)), hard_round, hard_round)
    assert adapt(codec, quantised).adaptations == ()
    stream = Bitstream.from_bytes(encode_image(loaded, quantised, 64, 64))
    with pytest.raises(BitstreamError):
        decode_image(loaded, replace(stream, strings=[*stream.strings, b"12"]).to_bytes())
