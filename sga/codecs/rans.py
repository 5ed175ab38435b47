"""The entropy coder: CompressAI's rANS, so called that no string makes it read or write outside its memory.

CompressAI's decoder checks no bound. Each symbol of a table reads at most one word of 32 bits; an escape, which stands for a symbol
outside its table, is followed by a number inside the string that may be of any length. So here

* the coder sees one table entry more than there is: its own escapes never occur, and that of a table is a symbol like any other;
* what escapes stand for is behind the words of the coder, last byte first, as Golomb codes;
* a string is decoded with one word of zeros per symbol behind it, which is as far as the decoder can come;
* the symbols are encoded again and must give the string: then every byte was used, and nothing behind it.

Strings of earlier versions have the numbers inside. Without an escape they are the same; with one, :class:`InlineDecoder`
reads them, with bounds, symbol by symbol in Python.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from compressai.ans import RansDecoder, RansEncoder
from torch import Tensor

from sga.codecs.bits import BitReader, golomb, to_bytes

PRECISION = 16
"""Bits of the coder's probabilities."""
WORD_BYTES = 4
STATE_BYTES = 8
"""Bytes that a string has at least."""
LOWEST_STATE = 1 << 31
"""State of the coder before its first symbol, and the least between two."""
ESCAPE_BITS, LONGEST_ESCAPE = 4, 8
"""Bits of a digit of an inline escape, and the most digits of a number of 32 bits."""


class InlineString(bytes):
    """String of a file of version 1 to 3: what its escapes stand for is inside."""


@dataclass(frozen=True)
class Tables:
    """Tables of an entropy model.

    Attributes:
        cdf: Cumulative frequencies ``[tables, longest]``, int32, from 0 to 2^16 in each row; behind its length a row is not used.
        lengths: Numbers in each row, ``[tables]``; the last interval is the escape.
        offsets: Least symbol of each table, ``[tables]``.
    """

    cdf: Tensor
    lengths: Tensor
    offsets: Tensor

    @cached_property
    def rows(self) -> list[list[int]]:
        """Each table as a list."""
        return [row[:length] for row, length in zip(self.cdf.tolist(), self.lengths.tolist(), strict=True)]

    @cached_property
    def for_coder(self) -> tuple[list[list[int]], list[int], list[int]]:
        """Tables, lengths and offsets as the coder takes them: one entry longer, and symbols counted from 0."""
        rows = [[*row, row[-1]] for row in self.rows]
        return rows, [len(row) for row in rows], [0] * len(rows)

    @cached_property
    def least_bits(self) -> Tensor:
        """Bits of the likeliest symbol of each table, ``[tables]``, float64."""
        frequencies = (self.cdf[:, 1:] - self.cdf[:, :-1]).amax(1).clamp(min=1)  # behind a row's length they are negative
        return PRECISION - frequencies.double().log2()

    def escape(self, indexes: Tensor) -> Tensor:
        """Number of the escape in the table of each index."""
        return self.lengths[indexes] - 2


def encode(symbols: Tensor, indexes: Tensor, tables: Tables) -> bytes:
    """The string of integers.

    Args:
        symbols: Integer-valued, of any shape, below 2^31 in size.
        indexes: Table of each symbol, of the same shape.
        tables: Tables of the entropy model.
    """
    which = indexes.reshape(-1).long()
    escape = tables.escape(which)
    numbers = symbols.reshape(-1).long() - tables.offsets[which]
    outside = (numbers < 0) | (numbers >= escape)
    # Above the table, the distance to its end; below, to its begin.
    beyond = torch.where(numbers < 0, numbers, numbers - escape)[outside].tolist()
    told = to_bytes("".join(golomb(number, 0) for number in beyond))
    return _words(torch.where(outside, escape, numbers).tolist(), which.tolist(), tables) + told[::-1]


class Decoder:
    """The symbols of a string of :func:`encode`, some at a time.

    Args:
        string: The string.
        count: Number of all its symbols.
        tables: Tables of the entropy model.
    """

    def __init__(self, string: bytes, count: int, tables: Tables) -> None:
        self._string, self._tables = string, tables
        self._told = BitReader(string[::-1])
        self._numbers: list[int] = []
        self._indexes: list[int] = []
        self._left = count
        self._decoder = RansDecoder()
        self._decoder.set_stream(string + bytes(WORD_BYTES * count + STATE_BYTES))

    def next(self, indexes: Tensor) -> Tensor:
        """As many symbols as there are ``indexes`` of tables: int64, of their shape.

        Raises:
            ValueError: The string is not of these tables.
        """
        self._left -= indexes.numel()
        assert self._left >= 0, "more symbols than there was memory made for"
        which = indexes.reshape(-1).long()
        # Every call copies its tables, and the last ones, of scales that hardly occur, are long.
        used = int(which.max()) + 1
        listed = which.tolist()
        numbers = self._decoder.decode_stream(listed, *(part[:used] for part in self._tables.for_coder))
        self._numbers += numbers
        self._indexes += listed
        symbols = torch.tensor(numbers)
        escape = self._tables.escape(which)
        for place in (symbols == escape).nonzero().flatten().tolist():
            beyond = self._told.golomb(0)
            symbols[place] = beyond if beyond < 0 else beyond + escape[place]
        return (symbols + self._tables.offsets[which]).reshape(indexes.shape)

    def finish(self) -> None:
        """To be called behind the last symbol.

        Raises:
            ValueError: The string is not what :func:`encode` makes of the symbols: it is forged, or of other tables.
        """
        told = self._told.close()
        words = self._string[: len(self._string) - told]
        if _words(self._numbers, self._indexes, self._tables) != words:
            raise ValueError("a string is not what an encoder writes for its symbols")


class InlineDecoder:
    """The symbols of an :class:`InlineString`, some at a time; slow.

    Args:
        string: The string.
        tables: Tables of the entropy model.

    Raises:
        ValueError: The string is too short.
    """

    def __init__(self, string: bytes, tables: Tables) -> None:
        if len(string) < STATE_BYTES or len(string) % WORD_BYTES:
            raise ValueError("a string is cut off")
        self._tables = tables
        self._words = struct.unpack(f"<{len(string) // WORD_BYTES}I", string)
        self._state, self._at = self._words[0] | self._words[1] << 32, 2

    def next(self, indexes: Tensor) -> Tensor:
        """See :meth:`Decoder.next`."""
        rows, offsets = self._tables.rows, self._tables.offsets.tolist()
        symbols = []
        for index in indexes.reshape(-1).tolist():
            row = rows[index]
            place = self._state & 0xFFFF
            number = bisect_right(row, place) - 1
            self._advance((row[number + 1] - row[number]) * (self._state >> PRECISION) + place - row[number])
            if number == len(row) - 2:
                beyond = self._beyond()
                number = -(beyond >> 1) - 1 if beyond & 1 else number + (beyond >> 1)
            symbols.append(number + offsets[index])
        return torch.tensor(symbols).reshape(indexes.shape)

    def finish(self) -> None:
        """See :meth:`Decoder.finish`."""
        if self._state != LOWEST_STATE or self._at != len(self._words):
            raise ValueError("a string is not used up by its symbols")

    def _beyond(self) -> int:
        count = last = self._digit()
        while last == (1 << ESCAPE_BITS) - 1 and count <= LONGEST_ESCAPE:
            last = self._digit()
            count += last
        if count > LONGEST_ESCAPE:
            raise ValueError("a number is absurdly large")
        return sum(self._digit() << ESCAPE_BITS * place for place in range(count))

    def _digit(self) -> int:
        digit = self._state & ((1 << ESCAPE_BITS) - 1)
        self._advance(self._state >> ESCAPE_BITS)
        return digit

    def _advance(self, state: int) -> None:
        if state < LOWEST_STATE:
            if self._at == len(self._words):
                raise ValueError("a string is cut off")
            state = state << 32 | self._words[self._at]
            self._at += 1
        self._state = state


def _words(numbers: Sequence[int], indexes: Sequence[int], tables: Tables) -> bytes:
    """The coder's words of symbols counted from 0, escapes among them."""
    words: bytes = RansEncoder().encode_with_indexes(numbers, indexes, *tables.for_coder)
    return words
