"""A coverage-guided fuzzer (atheris) on what reads a file: header, lengths, adaptation, Golomb codes, strings of the coder.

python -m benchmarks.fuzz_parser -max_total_time=60
"""

from __future__ import annotations

import sys
from contextlib import suppress
from zlib import crc32

import atheris

with atheris.instrument_imports(include=["sga.bitstream", "sga.codecs.adaptation", "sga.codecs.bits", "sga.codecs.rans"]):
    import torch

    from sga.bitstream import HEADER_BYTES, Bitstream, BitstreamError
    from sga.codecs.adaptation import Adaptation
    from sga.codecs.rans import Decoder, InlineDecoder, Tables

TABLES = Tables(torch.tensor([[0, 60000, 65000, 65536], [0, 1, 65536, 0]]).int(), torch.tensor([4, 3]), torch.tensor([-1, 0]))
INDEXES = torch.tensor([0, 1] * 8)


def one_input(data: bytes) -> None:
    """Whatever the bytes are, each reader reads them or raises its own error."""
    with suppress(BitstreamError):
        stream = Bitstream.from_bytes(_with_checksum(data))
        assert Bitstream.from_bytes(stream.to_bytes()) == stream
    with suppress(ValueError):
        Adaptation.from_bytes(data, 12)
    with suppress(ValueError):
        _decode(InlineDecoder(data, TABLES))
    with suppress(ValueError):
        _decode(Decoder(data, INDEXES.numel(), TABLES))


def _with_checksum(data: bytes) -> bytes:
    """The bytes as a file of the present version that passes its checksum."""
    body = data.ljust(HEADER_BYTES, b"\0")
    fields = b"SGA\x04" + body[4:15]
    return fields + crc32(body[HEADER_BYTES:], crc32(fields)).to_bytes(4, "little") + body[HEADER_BYTES:]


def _decode(decoder: Decoder | InlineDecoder) -> None:
    decoder.next(INDEXES)
    decoder.finish()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
