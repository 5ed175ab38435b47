"""The file format: an image's entropy-coded strings behind a header of 19 bytes, and images to files and back.

::

    offset  bytes  field
         0      4  magic "SGA\\x04": the last byte is the version of the format
         4      6  hash of the model (weights and coding tables)
        10      2  height of the image in pixels
        12      2  width
        14      1  number of strings; 128 more where there is a gain
        15      4  CRC-32 of all other bytes of the file
        19      -  payload: the gain, an IEEE 754 half, if the codec has one; the strings in reverse (adaptation
                   if there is one, z, y), each but the last behind its length (LEB128: 7 bits a byte, low first)

Integers and the gain are little-endian. How latents were found does not show: a refined file decodes like any other. Files of
versions 1 to 3 are read too; docs/bitstream.md describes them, and what a string is.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from sga.codecs.latents import Quantised
from sga.codecs.rans import InlineString
from sga.images import padded_size, to_uint8
from sga.loading import LoadedCodec
from sga.memory import available_memory

MAGIC = b"SGA"
VERSION = 4
READABLE = (1, 2, 3, VERSION)
MAX_SIDE = 2**16 - 1
MAX_PIXELS = 2**28
"""Larger images are refused, before memory is taken for them."""
UNBOUNDED = "SGA_DECODE_ANY_SIZE"
"""Variable of the environment that lets files decode for which the memory seems too small."""
BYTES_PER_PIXEL_AND_CHANNEL = 3
"""Memory of a decoder: three fp32 tensors of N channels at half the resolution."""

_FIELDS = struct.Struct("<3sB6sHHB")
_CHECK = struct.Struct("<I")
_GAIN = struct.Struct("<e")
_WITH_GAIN = 0x80
HEADER_BYTES = _FIELDS.size + _CHECK.size
MAX_OVERHEAD_BYTES = HEADER_BYTES + 3
"""Header and the length of z, where z is under 2 MiB; the length of an adaptation counts as part of it, and so does a gain."""

_EARLIER_FIELDS = struct.Struct("<3sB6sHHIB")
_EARLIER_CHECK = struct.Struct("<H")
_EARLIER_WITH_GAIN = 3


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
            BitstreamError: A side or the number of pixels is over the limit of the format, or a string is of an earlier version,
                in which escapes are written otherwise.
        """
        check_size(self.height, self.width)
        if any(isinstance(string, InlineString) for string in self.strings):
            raise BitstreamError("strings of an earlier version are read, but not written")
        *first, last = reversed(self.strings)
        gain = b"" if self.gain is None else _GAIN.pack(self.gain)
        payload = gain + b"".join(_leb128(len(string)) + string for string in first) + last
        count = len(self.strings) | (0 if self.gain is None else _WITH_GAIN)
        fields = _FIELDS.pack(MAGIC, VERSION, self.model_hash, self.height, self.width, count)
        return fields + _CHECK.pack(zlib.crc32(payload, zlib.crc32(fields))) + payload

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
        version = data[len(MAGIC)]
        if version not in READABLE:
            raise BitstreamError(f"format version {version}; this program reads versions {READABLE[0]} to {READABLE[-1]}")
        if version < VERSION:
            return _read_earlier(data, version)
        _, _, model_hash, height, width, count = _FIELDS.unpack_from(data)
        (check,) = _CHECK.unpack_from(data, _FIELDS.size)
        payload = data[HEADER_BYTES:]
        if check != zlib.crc32(payload, zlib.crc32(data[: _FIELDS.size])):
            raise BitstreamError("damaged or truncated: its checksum is wrong")
        check_size(height, width)
        gain, strings = _read_payload(payload, count & ~_WITH_GAIN, bool(count & _WITH_GAIN))
        return cls(model_hash, height, width, strings, gain)


def _read_earlier(data: bytes, version: int) -> Bitstream:
    """A file of version 1 to 3: two checksums, of the header (its low half) and of the payload."""
    header_bytes = _EARLIER_FIELDS.size + _EARLIER_CHECK.size
    if len(data) < header_bytes:
        raise BitstreamError(f"truncated: {len(data)} bytes, the header alone has {header_bytes}")
    _, _, model_hash, height, width, crc, count = _EARLIER_FIELDS.unpack_from(data)
    (check,) = _EARLIER_CHECK.unpack_from(data, _EARLIER_FIELDS.size)
    if check != zlib.crc32(data[: _EARLIER_FIELDS.size]) & 0xFFFF:
        raise BitstreamError("damaged: the checksum of the header is wrong")
    payload = data[header_bytes:]
    if crc != zlib.crc32(payload):
        raise BitstreamError("damaged or truncated: the checksum of the payload is wrong")
    check_size(height, width)
    gain, strings = _read_payload(payload, count, version == _EARLIER_WITH_GAIN)
    coded = [InlineString(string) for string in strings[:2]]  # y and z; an adaptation is no string of the coder
    return Bitstream(model_hash, height, width, [*coded, *strings[2:]], gain)


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
        BitstreamError: See :meth:`Bitstream.from_bytes`; the file was written with another model, or is too large for the memory.
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
    """A file that this model has written, of an image that the memory holds."""
    stream = Bitstream.from_bytes(data)
    if stream.model_hash != loaded.model_hash:
        raise BitstreamError(
            f"written with model {stream.model_hash.hex()}, not with this one ({loaded.model_hash.hex()}): "
            "give the checkpoint that wrote it"
        )
    if (stream.gain is not None) != loaded.codec.variable_rate:
        raise BitstreamError("the payload is not of this model: one of the two has a gain, and the other has none")
    _require_memory(loaded, stream.height, stream.width)
    return stream


def _require_memory(loaded: LoadedCodec, height: int, width: int) -> None:
    """Refuses an image that the CPU's free memory cannot hold while it is decoded.

    A file of a few bytes may say any size; :data:`UNBOUNDED` turns the check off.
    """
    free = available_memory()
    if loaded.device.type != "cpu" or free is None or os.environ.get(UNBOUNDED):
        return
    needed = height * width * BYTES_PER_PIXEL_AND_CHANNEL * loaded.codec.sizes["N"]
    if needed > free:
        raise BitstreamError(
            f"an image of {width} x {height} pixels takes about {needed / 1e9:.1f} GB to decode, and {free / 1e9:.1f} GB are free: "
            f"free some, or set {UNBOUNDED}=1 to try it"
        )


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


def _read_payload(payload: bytes, count: int, with_gain: bool) -> tuple[float | None, list[bytes]]:
    """Gain, and strings in the order of :meth:`Codec.encode`."""
    if count == 0:
        raise BitstreamError("damaged: it holds no string")
    if not with_gain:
        return None, _split(payload, count)
    if len(payload) < _GAIN.size:
        raise BitstreamError("damaged: the gain is missing")
    (gain,) = _GAIN.unpack_from(payload)
    if not 0 < gain < math.inf:
        raise BitstreamError(f"damaged: a gain of {gain:g}")
    return gain, _split(payload[_GAIN.size :], count)


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
