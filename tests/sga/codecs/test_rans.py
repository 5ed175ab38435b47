from __future__ import annotations

import pytest
import torch
from compressai.entropy_models import EntropyModel
from torch import Tensor

from sga.codecs import ScaleHyperpriorCodec
from sga.codecs.bits import BitReader, golomb, to_bytes
from sga.codecs.entropy import StreamDecoder, compress, decompress
from sga.codecs.rans import InlineString


@pytest.fixture
def model(small_codec: ScaleHyperpriorCodec) -> EntropyModel:
    gaussian: EntropyModel = small_codec.net.gaussian_conditional
    return gaussian


def drawn(model: EntropyModel, count: int = 3000) -> tuple[Tensor, Tensor]:
    """Symbols and the indexes of their tables, none outside its table."""
    generator = torch.Generator().manual_seed(0)
    indexes = torch.randint(0, len(model.cdf_length), (count,), generator=generator).int()
    reach = model.cdf_length.long()[indexes] // 2 - 2
    symbols = (torch.randn(count, generator=generator) * reach / 3).round().clamp(-reach, reach)
    return symbols, indexes


def with_escapes(symbols: Tensor) -> Tensor:
    """The symbols with some far outside every table."""
    outside = symbols.clone()
    outside[[0, 17, 18, 1000, -1]] = torch.tensor([5000.0, -70_000, 2**24 - 1, -(2**24) + 1, 9999])
    return outside


def test_without_an_escape_a_string_is_compressais(model: EntropyModel) -> None:
    symbols, indexes = drawn(model)
    string = compress(model, symbols, indexes)
    assert string == EntropyModel.compress(model, symbols[None], indexes[None])[0]
    assert torch.equal(decompress(model, string, indexes), symbols.double())


@pytest.mark.parametrize("inline", [False, True])
def test_escapes_round_trip_in_strings_of_every_version(model: EntropyModel, inline: bool) -> None:
    symbols, indexes = drawn(model)
    symbols = with_escapes(symbols)
    string = compress(model, symbols, indexes)
    if inline:
        string = InlineString(EntropyModel.compress(model, symbols[None], indexes[None])[0])
    assert torch.equal(decompress(model, string, indexes), symbols.double())


@pytest.mark.parametrize("inline", [False, True])
def test_a_string_is_used_up_exactly(model: EntropyModel, inline: bool) -> None:
    symbols, indexes = drawn(model)
    string = compress(model, with_escapes(symbols), indexes)
    if inline:
        string = EntropyModel.compress(model, with_escapes(symbols)[None], indexes[None])[0]
    kind = InlineString if inline else bytes
    for forged in (string + b"\0", string + bytes(4), string[:-1], string[:-4], string[:9], b"", b"\xff" * len(string)):
        with pytest.raises(ValueError, match=r"string|number"):
            decompress(model, kind(forged), indexes)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0xFF])
def test_strings_of_one_byte_repeated_give_an_error(model: EntropyModel, inline: bool, byte: int) -> None:
    indexes = torch.arange(len(model.cdf_length)).repeat(500).int()
    string = bytes([byte]) * 4000
    with pytest.raises(ValueError, match=r"string|number"):
        decompress(model, InlineString(string) if inline else string, indexes)


def test_a_string_too_short_for_its_symbols_is_refused_before_memory_is_taken(model: EntropyModel) -> None:
    with pytest.raises(ValueError, match="too short for 1000000000 symbols"):
        StreamDecoder(model, bytes(64), 10**9)


@pytest.mark.parametrize("number", [0, 1, -1, 2, -2, 77, -12345, 2**24, -(2**25)])
@pytest.mark.parametrize("order", [0, 2])
def test_golomb_codes_round_trip(number: int, order: int) -> None:
    data = to_bytes("101" + golomb(number, order) + golomb(-number, order))
    reader = BitReader(data)
    assert reader.number(3) == 5
    assert (reader.golomb(order), reader.golomb(order)) == (number, -number)
    assert reader.close() == len(data)


def test_an_endless_number_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="absurdly large"):
        BitReader(bytes(10**6)).golomb(0)
    with pytest.raises(ValueError, match="cut off"):
        BitReader(b"\0").golomb(0)
    with pytest.raises(ValueError, match="zeros"):
        filled = BitReader(b"\x81")
        filled.number(1)
        filled.close()
