from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from sga.bitstream import HEADER_BYTES, Bitstream, BitstreamError, decode_image, encode_image
from sga.codecs import Quantised
from sga.images import pad, to_float
from sga.loading import LoadedCodec
from sga.refinement.rounding import hard_round

STREAM = Bitstream(bytes(range(6)), 321, 481, [b"y string", b"z"])


def hard_latents(loaded: LoadedCodec, image: Tensor) -> Quantised:
    x = pad(to_float(image), 64)[None]
    return loaded.codec.quantise(loaded.codec.analyse(x), hard_round, hard_round)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (63, 65), (161, 97), (512, 768)])
def test_an_image_of_any_size_round_trips(height: int, width: int, embedded: LoadedCodec, photograph: Tensor) -> None:
    image = photograph.repeat(1, 1, 2)[:, :height, :width]
    quantised = hard_latents(embedded, image)
    data = encode_image(embedded, quantised, height, width)
    decoded = decode_image(embedded, data)
    assert decoded.shape == image.shape and decoded.dtype == torch.uint8
    expected = embedded.codec.synthesise(embedded.codec.dequantise(quantised))[0, :, :height, :width].clamp(0, 1) * 255
    assert (decoded - expected).abs().max() < 0.51
    payload = sum(len(string) for string in Bitstream.from_bytes(data).strings)
    assert len(data) - payload <= 24


def test_estimated_and_coded_bits_agree(embedded: LoadedCodec, photograph: Tensor) -> None:
    quantised = hard_latents(embedded, photograph)
    estimated = embedded.codec.bits(quantised).total.item()
    coded = 8 * sum(len(string) for string in embedded.codec.encode(quantised))
    assert coded == pytest.approx(estimated, rel=0.01)


def test_fields_round_trip() -> None:
    assert Bitstream.from_bytes(STREAM.to_bytes()) == STREAM
    long = replace(STREAM, strings=[b"y" * 5, b"z" * 40_000])
    assert Bitstream.from_bytes(long.to_bytes()) == long
    one = replace(STREAM, strings=[b"only y"])
    assert Bitstream.from_bytes(one.to_bytes()) == one


def test_every_damaged_byte_is_noticed() -> None:
    data = STREAM.to_bytes()
    for position in range(len(data)):
        for flip in (0x01, 0x80):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(BitstreamError):
                Bitstream.from_bytes(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    data = STREAM.to_bytes()
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            Bitstream.from_bytes(data[:length])
    with pytest.raises(BitstreamError, match="checksum"):
        Bitstream.from_bytes(data + b"\0")


def test_refusals_say_why(embedded: LoadedCodec) -> None:
    with pytest.raises(BitstreamError, match="not a file of this codec"):
        Bitstream.from_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(BitstreamError, match="written with model 000102030405"):
        decode_image(embedded, STREAM.to_bytes())
    with pytest.raises(BitstreamError, match="absurd size 70000 x 10"):
        replace(STREAM, height=10, width=70_000).to_bytes()


def forged(height: int, width: int, payload: bytes = b"\x01zy", count: int = 2, version: int = 4) -> bytes:
    """A file whose checksum is right."""
    fields = struct.pack("<3sB6sHHB", b"SGA", version, bytes(6), height, width, count)
    return fields + struct.pack("<I", zlib.crc32(payload, zlib.crc32(fields))) + payload


def earlier(height: int, width: int, payload: bytes = b"\x01zy", count: int = 2, version: int = 2) -> bytes:
    """A file of version 1 to 3 whose checksums are right."""
    fields = struct.pack("<3sB6sHHIB", b"SGA", version, bytes(6), height, width, zlib.crc32(payload), count)
    return fields + struct.pack("<H", zlib.crc32(fields) & 0xFFFF) + payload


def test_files_of_every_version_are_read() -> None:
    for data in (forged(5, 7), earlier(5, 7), earlier(5, 7, version=1), earlier(5, 7, b"\x00\x3c\x01zy", version=3)):
        stream = Bitstream.from_bytes(data)
        assert (stream.height, stream.width, stream.strings) == (5, 7, [b"y", b"z"])
        assert stream.gain == (1 if data[3] == 3 else None)
        if data[3] < 4:
            with pytest.raises(BitstreamError, match="not written"):
                stream.to_bytes()
    with_gain = Bitstream.from_bytes(forged(5, 7, b"\x00\x40\x01zy", count=130))
    assert with_gain.gain == 2 and Bitstream.from_bytes(with_gain.to_bytes()) == with_gain


def test_forged_files_are_refused_before_memory_is_taken() -> None:
    assert len(forged(1, 1)) == HEADER_BYTES + 3
    for data, why in (
        (forged(65535, 65535), "absurd size"),
        (forged(0, 5), "absurd size"),
        (forged(8, 8, version=5), "version 5"),
        (forged(8, 8, count=0), "no string"),
        (forged(8, 8, count=130, payload=b"\x01"), "gain is missing"),
        (forged(8, 8, count=130, payload=b"\x00\x00\x01zy"), "a gain of 0"),
        (forged(8, 8, count=130, payload=b"\x00\x7c\x01zy"), "a gain of inf"),
        (forged(8, 8, count=130, payload=b"\x00\xbc\x01zy"), "a gain of -1"),
        (forged(8, 8, payload=b"\x05zy"), "behind the end"),
        (forged(8, 8, payload=b"\x80"), "length is missing"),
        (earlier(65535, 65535), "absurd size"),
        (earlier(8, 8, version=3, payload=b"\x01"), "gain is missing"),
        (earlier(8, 8, payload=b"\x05zy"), "behind the end"),
        (earlier(8, 8)[:20], "truncated"),
    ):
        with pytest.raises(BitstreamError, match=why):
            Bitstream.from_bytes(data)


def test_four_bits_of_the_size_do_not_pass() -> None:
    data = STREAM.to_bytes()
    for bits in combinations(range(80, 112), 4):  # of height and width: 35,960 ways
        damaged = bytearray(data)
        for bit in bits:
            damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError, match="checksum"):
            Bitstream.from_bytes(bytes(damaged))


def test_a_large_size_in_a_short_file_is_refused_at_once(embedded: LoadedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sga.bitstream.available_memory", lambda: None)
    strings = [bytes(8), bytes(8)]
    with pytest.raises(BitstreamError, match="too short for"):
        decode_image(embedded, Bitstream(embedded.model_hash, 2048, 65535, strings, gain=1.0).to_bytes())


def test_an_image_larger_than_the_memory_is_refused(embedded: LoadedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sga.bitstream.available_memory", lambda: 10**9)
    data = Bitstream(embedded.model_hash, 4096, 4096, [bytes(8), bytes(8)], gain=1.0).to_bytes()
    with pytest.raises(BitstreamError, match=r"4096 x 4096 pixels takes about 6\.4 GB to decode, and 1\.0 GB are free"):
        decode_image(embedded, data)
    monkeypatch.setenv("SGA_DECODE_ANY_SIZE", "1")
    with pytest.raises(BitstreamError, match="too short for"):
        decode_image(embedded, data)


def test_the_file_that_made_the_coder_read_outside_its_memory_is_refused(one_rate: LoadedCodec) -> None:
    data = bytes.fromhex("53474102412c6e2df8df000100018def02d202e89a00")
    with pytest.raises(BitstreamError, match="too short for"):
        decode_image(one_rate, data)


def test_a_wrong_number_of_strings_is_refused(embedded: LoadedCodec) -> None:
    data = Bitstream(embedded.model_hash, 8, 8, [b"only one"]).to_bytes()
    with pytest.raises(BitstreamError, match="not of this model"):
        decode_image(embedded, data)
