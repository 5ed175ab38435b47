from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from sga.codecs import Codec, ContextModelCodec, Quantised, ScaleHyperpriorCodec
from sga.images import pad, to_float
from sga.refinement.rounding import hard_round
from tests.conftest import random_codec, random_image


def gain_of(quantised: Quantised) -> float | None:
    return None if quantised.gain is None else float(quantised.gain)


@pytest.mark.parametrize(
    "adapter", [adapter for adapter in Codec.adapters() if not (issubclass(adapter, ContextModelCodec) or adapter.variable_rate)]
)
def test_bits_are_those_of_compressai(adapter: type[Codec]) -> None:
    codec, x = random_codec(adapter), random_image()
    quantised = codec.quantise(codec.analyse(x), hard_round, hard_round)
    bits = codec.bits(quantised)
    expected = codec.net(x)
    torch.testing.assert_close(bits.y.sum(), -expected["likelihoods"]["y"].log2().sum())
    if quantised.z_hat is None:
        assert bits.z == 0
    else:
        torch.testing.assert_close(bits.z.sum(), -expected["likelihoods"]["z"].log2().sum())
    torch.testing.assert_close(codec.synthesise(quantised.y_hat), expected["x_hat"])


def test_a_codec_says_its_sizes_and_has_its_transforms(any_codec: Codec) -> None:
    arguments = inspect.signature(type(any_codec)).parameters
    again = type(any_codec)(**{name: size for name, size in any_codec.sizes.items() if name in arguments})
    assert again.sizes == any_codec.sizes and any_codec.sizes["N"] == 8
    found = {name: value.shape for name, value in again.net.named_parameters()}
    assert found == {name: value.shape for name, value in any_codec.net.named_parameters()}
    inside = {id(parameter) for transform in any_codec.transforms for parameter in transform.parameters()}
    without = {name.partition(".")[0] for name, parameter in any_codec.net.named_parameters() if id(parameter) not in inside}
    rates = {"Gain", "QuantABCD"} if any_codec.variable_rate else set()
    assert without <= {"entropy_bottleneck", "context_prediction", "entropy_parameters", *rates}
    assert any_codec.net.g_a in any_codec.transforms and any_codec.net.g_s in any_codec.transforms


def test_latents_have_the_size_that_the_strides_say(any_codec: Codec) -> None:
    latents = any_codec.analyse(random_image(64, 128))
    assert latents.y.shape == (1, any_codec.sizes["M"], 64 // any_codec.y_stride, 128 // any_codec.y_stride)
    if latents.z is not None:
        assert latents.z.shape[-2:] == (64 // any_codec.stride, 128 // any_codec.stride)
    assert any_codec.synthesise(latents.y).shape == (1, 3, 64, 128)


def test_y_and_z_are_rounded_by_their_own_callables_once(any_codec: Codec) -> None:
    latents = any_codec.analyse(random_image())
    called: list[str] = []

    def round_y(value: Tensor, offset: Tensor | None) -> Tensor:
        assert value is latents.y
        called.append("y")
        return hard_round(value, offset)

    def round_z(value: Tensor, offset: Tensor | None) -> Tensor:
        assert value is latents.z
        called.append("z")
        return hard_round(value, offset)

    quantised = any_codec.quantise(latents, round_y, round_z)
    assert called == (["y"] if latents.z is None else ["z", "y"])
    assert (quantised.z_hat is None) == (latents.z is None)


def test_bits_of_a_batch_are_those_of_its_images(any_codec: Codec) -> None:
    x = torch.cat([random_image(), random_image().flip(-1) * 0.5])
    together = any_codec.bits(any_codec.quantise(any_codec.analyse(x), hard_round, hard_round))
    for i in range(2):
        alone = any_codec.bits(any_codec.quantise(any_codec.analyse(x[i : i + 1]), hard_round, hard_round))
        torch.testing.assert_close(together.y[i : i + 1], alone.y)
        torch.testing.assert_close(together.z[i : i + 1], alone.z)


def test_strings_decode_to_the_latents(any_codec: Codec) -> None:
    quantised = any_codec.quantise(any_codec.analyse(random_image(192, 64) * 3), hard_round, hard_round)
    assert quantised.y_hat.abs().max() >= 1
    decoded = any_codec.decode(any_codec.encode(quantised), 192, 64, gain_of(quantised))
    torch.testing.assert_close(decoded, any_codec.dequantise(quantised), atol=1e-5, rtol=0)


def test_strings_without_an_escape_decode_through_compressai_itself(any_codec: Codec, photograph: Tensor) -> None:
    x = pad(to_float(photograph)[None, :, 100:261, 200:297], 64)
    latents = any_codec.analyse(x).map(lambda value: value.clamp(-1, 1))  # no table is shorter
    quantised = any_codec.quantise(latents, hard_round, hard_round)
    assert quantised.y_hat.abs().max() >= 1
    net = type(any_codec.net).from_state_dict(any_codec.net.state_dict()).eval()
    shape = tuple(side // any_codec.stride for side in x.shape[-2:])
    strings = [[string] for string in any_codec.encode(quantised)]
    # The coder's indexes are computed in float64 here, so that they are the same on every machine.
    torch.set_default_dtype(torch.float64)  # CompressAI's serial decoder begins with zeros of it
    try:
        if any_codec.variable_rate:
            decoded = net.double().decompress(strings, shape, inputscale=torch.tensor(gain_of(quantised)))["x_hat"]
        else:
            decoded = net.double().decompress(strings, shape)["x_hat"]
    finally:
        torch.set_default_dtype(torch.float32)
    expected = any_codec.synthesise(any_codec.dequantise(quantised)).clamp(0, 1)
    torch.testing.assert_close(decoded.float(), expected, atol=1e-4, rtol=0)


def test_coding_without_tables_says_what_to_do() -> None:
    codec = ScaleHyperpriorCodec(N=8, M=12)
    with torch.no_grad():
        quantised = codec.quantise(codec.analyse(random_image()), hard_round, hard_round)
    with pytest.raises(RuntimeError, match="make_tables"):
        codec.encode(quantised)


def test_a_wrong_number_of_strings_is_said_in_words(any_codec: Codec) -> None:
    strings = [b"y"] if hasattr(any_codec.net, "h_s") else [b"y", b"z"]
    for decode in (any_codec.decode, any_codec.decode_latents):
        with pytest.raises(ValueError, match="and this codec writes one"):
            decode(strings, 64, 64)
