"""The file format: an image's entropy-coded strings behind a header of 21 bytes, and images to files and back.

::

    offset  bytes  field
         0      4  magic "SGA\\x02": the last byte is the version of the format
         4      6  hash of the model (weights and coding tables)
        10      2  height of the image in pixels
        12      2  width
        14      4  CRC-32 of the payload
        18      1  number of strings
        19      2  low half of the CRC-32 of bytes 0 ... 18
        21      -  payload: the strings in reverse (adaptation of the prior if there is one, z, y), each but the last behind its
                   length (LEB128: 7 bits a byte, low first)

A file of a codec of variable rate is of version 3: its payload begins with two bytes more, the gain as an IEEE 754 half. Files of
other codecs stay of version 2.

Integers and the gain are little-endian. How latents were found does not show: a refined file decodes like any other.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from sga.codecs.latents import Quantised
from sga.images import padded_size, to_uint8
from sga.loading import LoadedCodec

MAGIC = b"SGA"
VERSION = 2
VERSION_WITH_GAIN = 3
READABLE = (1, 2, 3)
"""Files of version 1 have no adaptation, and are the same otherwise."""
MAX_SIDE = 2**16 - 1
MAX_PIXELS = 2**28
"""Larger images are refused, before memory is taken for them."""

_FIELDS = struct.Struct("<3sB6sHHIB")
_CHECK = struct.Struct("<H")
_GAIN = struct.Struct("<e")
HEADER_BYTES = _FIELDS.size + _CHECK.size
MAX_OVERHEAD_BYTES = HEADER_BYTES + 3
"""Header and the length of z, where z is under 2 MiB; the length of an adaptation counts as part of it, and so does a gain."""


class BitstreamError(ValueError):
    """Bytes that do not decode: foreign, damaged, truncated, or written with another model."""


@dataclass(frozen=True)
class Bitstream:
    """What a file says.

    Attributes:
        model_hash: Hash of the model that wrote it.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        strings: Entropy-coded strings, in the order of :meth:`Codec.encode`.
        gain: Gain of the latents, exact in half precision; ``None`` for a codec of one rate.
    """

    model_hash: bytes
    height: int
    width: int
    strings: list[bytes]
    gain: float | None = None

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            BitstreamError: A side or the number of pixels is over the limit of the format.
        """
        check_size(self.height, self.width)
        *first, last = reversed(self.strings)
        gain = b"" if self.gain is None else _GAIN.pack(self.gain)
        payload = gain + b"".join(_leb128(len(string)) + string for string in first) + last
        version = VERSION if self.gain is None else VERSION_WITH_GAIN
        fields = _FIELDS.pack(MAGIC, version, self.model_hash, self.height, self.width, zlib.crc32(payload), len(self.strings))
        return fields + _CHECK.pack(zlib.crc32(fields) & 0xFFFF) + payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Bitstream:
        """Reads a file and checks it.

        Raises:
            BitstreamError: It is foreign, of another version, damaged, truncated or of an absurd size.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise BitstreamError("not a file of this codec (it does not begin with 'SGA')")
        if len(data) < HEADER_BYTES:
            raise BitstreamError(f"truncated: {len(data)} bytes, the header alone has {HEADER_BYTES}")
        _, version, model_hash, height, width, crc, count = _FIELDS.unpack_from(data)
        (check,) = _CHECK.unpack_from(data, _FIELDS.size)
        if check != zlib.crc32(data[: _FIELDS.size]) & 0xFFFF:
            raise BitstreamError("damaged: the checksum of the header is wrong")
        if version not in READABLE:
            raise BitstreamError(f"format version {version}; this program reads versions {READABLE[0]} to {READABLE[-1]}")
        check_size(height, width)
        payload = data[HEADER_BYTES:]
        if crc != zlib.crc32(payload):
            raise BitstreamError("damaged or truncated: the checksum of the payload is wrong")
        gain = None
        if version == VERSION_WITH_GAIN:
            if len(payload) < _GAIN.size:
                raise BitstreamError("damaged: the gain is missing")
            (gain,) = _GAIN.unpack_from(payload)
            if not 0 < gain < math.inf:
                raise BitstreamError(f"damaged: a gain of {gain:g}")
            payload = payload[_GAIN.size :]
        return cls(model_hash, height, width, _split(payload, count), gain)


def encode_image(loaded: LoadedCodec, quantised: Quantised, height: int, width: int) -> bytes:
    """The file of ONE image's hard-rounded latents.

    Args:
        loaded: The codec, with its tables.
        quantised: Batch of 1.
        height: Height of the image before padding, in pixels.
        width: Width of the image before padding, in pixels.

    Raises:
        BitstreamError: The image is too large for the format.
        ValueError: The latents are not those of the image padded to the codec's stride, which is what a decoder assumes.
    """
    expected = [side // loaded.codec.y_stride for side in padded_size(height, width, loaded.codec.stride)]
    if list(quantised.y_hat.shape[-2:]) != expected:
        raise ValueError(f"latents of {list(quantised.y_hat.shape[-2:])} where {expected} are expected: pad images to codec.stride")
    gain = None if quantised.gain is None else float(quantised.gain)
    return Bitstream(loaded.model_hash, height, width, loaded.codec.encode(quantised), gain).to_bytes()


@torch.no_grad()
def decode_image(loaded: LoadedCodec, data: bytes) -> Tensor:
    """The image of a file: uint8 ``[3, H, W]`` on the CPU.

    Raises:
        BitstreamError: See :meth:`Bitstream.from_bytes`; or the file was written with another model.
    """
    stream = _stream_of(loaded, data)
    try:
        y_hat = loaded.codec.decode(stream.strings, *padded_size(stream.height, stream.width, loaded.codec.stride), stream.gain)
    except ValueError as error:  # a crafted file: its checksums are right and its strings are not the model's
        raise BitstreamError(f"the payload is not of this model: {error}") from error
    x_hat = loaded.codec.frozen(torch.float32).synthesise(y_hat)
    return to_uint8(x_hat[0, :, : stream.height, : stream.width]).cpu()


@torch.no_grad()
def decode_latents(loaded: LoadedCodec, data: bytes) -> Quantised:
    """The latents of a file, to be looked at: see :meth:`Codec.decode_latents`.

    Raises:
        BitstreamError: As :func:`decode_image`.
    """
    stream = _stream_of(loaded, data)
    try:
        size = padded_size(stream.height, stream.width, loaded.codec.stride)
        return loaded.codec.decode_latents(stream.strings, *size, stream.gain)
    except ValueError as error:
        raise BitstreamError(f"the payload is not of this model: {error}") from error


def _stream_of(loaded: LoadedCodec, data: bytes) -> Bitstream:
    """A file that this model has written."""
    stream = Bitstream.from_bytes(data)
    if stream.model_hash != loaded.model_hash:
        raise BitstreamError(
            f"written with model {stream.model_hash.hex()}, not with this one ({loaded.model_hash.hex()}): "
            "give the checkpoint that wrote it"
        )
    if (stream.gain is not None) != loaded.codec.variable_rate:
        raise BitstreamError("the payload is not of this model: one of the two has a gain, and the other has none")
    return stream


def check_size(height: int, width: int) -> None:
    """Refuses what the format cannot hold.

    Raises:
        BitstreamError: A side or the number of pixels is over the limit.
    """
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise BitstreamError(f"absurd size {width} x {height}: sides of 1 to {MAX_SIDE} pixels, {MAX_PIXELS} pixels at most")


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _split(payload: bytes, count: int) -> list[bytes]:
    strings: list[bytes] = []
    position = 0
    for _ in range(count - 1):
        length = shift = 0
        while True:
            if position >= len(payload) or shift > 28:
                raise BitstreamError("damaged: a string's length is missing")
            byte = payload[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if position + length > len(payload):
            raise BitstreamError("damaged: a string ends behind the end of the file")
        strings.append(payload[position : position + length])
        position += length
    return [payload[position:], *reversed(strings)]
