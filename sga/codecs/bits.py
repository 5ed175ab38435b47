"""Integers as bits: signed exponential Golomb codes, as in H.264, written and read with a bound."""

from __future__ import annotations

MAX_ZEROS = 32
"""Longest prefix of a code that is read; what the project writes stays far below."""


def golomb(number: int, order: int) -> str:
    """The code of an integer as a text of 0 and 1: 0, 1, -1, 2, -2 ... from the shortest on."""
    unsigned = (2 * number - 1 if number > 0 else -2 * number) + (1 << order)
    digits = f"{unsigned:b}"
    return "0" * (len(digits) - 1 - order) + digits


def to_bytes(bits: str) -> bytes:
    """A text of 0 and 1 as bytes, the highest bit of each first, filled up with 0."""
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


class BitReader:
    """Bits of a string, the highest of each byte first.

    Args:
        data: The string; only what is asked for is looked at.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, width: int) -> int:
        """The next ``width`` bits as an unsigned integer.

        Raises:
            ValueError: Fewer are left.
        """
        end = self._at + width
        if end > 8 * len(self._data):
            raise ValueError("a number is cut off")
        first, last = self._at // 8, -(-end // 8)
        self._at = end
        return int.from_bytes(self._data[first:last], "big") >> (8 * last - end) & ((1 << width) - 1)

    def golomb(self, order: int) -> int:
        """The integer of the next code of :func:`golomb`.

        Raises:
            ValueError: It is cut off, or longer than any that is written.
        """
        zeros = 0
        while self.number(1) == 0:
            zeros += 1
            if zeros > MAX_ZEROS:
                raise ValueError("a number is absurdly large")
        unsigned = ((1 << (zeros + order)) | self.number(zeros + order)) - (1 << order)
        return (unsigned + 1) // 2 if unsigned % 2 else -unsigned // 2

    def close(self) -> int:
        """Number of bytes that were read, the last of them as a whole.

        Raises:
            ValueError: The bits that fill up the last byte are not 0.
        """
        if self.number(-self._at % 8):
            raise ValueError("the last byte of its numbers is not filled up with zeros")
        return self._at // 8
