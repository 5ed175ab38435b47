"""What a file tells its decoder about the prior of its own image, in a few dozen bytes.

The hyper-synthesis predicts the scales of y for the photographs that the model was trained on. For one image, some channels are
predicted too wide or too narrow throughout, and those that hold its coarse picture are far from independent: what is to the left
and above says much about the next symbol. Two numbers and a few weights a channel mend that::

    sigma'_c = max(sigma_c, 0.11) exp(gain_c / 8)
    mu'_c    = mu_c + round(sum over taps of weight / 16 * symbol)         symbol = y_hat - mu

The taps of a predicted channel are its own neighbours, left, above, above left and above right, and the symbols at the same
position in the predicted channels before it. The synthesis and its input stay as they are: this is lossless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sga.codecs.bits import BitReader, golomb, to_bytes

GAIN_UNIT, WEIGHT_UNIT = 1 / 8, 1 / 16
MAX_GAIN, MAX_WEIGHT = 12, 32
LOWEST_SCALE = 0.11
"""Scales below are coded as this one, in all of CompressAI's models."""

NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (-1, 1))
"""Rows and columns from a symbol to those of its channel that predict it."""

MAX_SYMBOL = 2**24
"""Larger integers are not exact in fp32."""

MOST_PREDICTED = 32
"""Channels that are predicted at most; restoring one takes a loop over its symbols."""

BEFORE = 3
"""Channels, of the predicted ones before, whose symbols at the same position predict too."""

TAPS = len(NEIGHBOURS) + BEFORE


@dataclass(frozen=True)
class Adaptation:
    """The prior of one image, told by its file.

    Attributes:
        gains: Gain of each channel of y, in eighths of a natural logarithm, -12 ... 12; 0 leaves it.
        channels: The predicted ones, in the order in which a decoder restores them.
        weights: Weights of the prediction of each of them: :data:`TAPS` numbers in sixteenths, -32 ... 32, neighbours first.
    """

    gains: tuple[int, ...]
    channels: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...]

    def scales(self, scales: Tensor) -> Tensor:
        """The adapted standard deviations, from those of the model ``[1, M, h, w]``."""
        return scales.clamp(min=LOWEST_SCALE) * _factors(self.gains, scales.dtype, scales.device)

    def predict(self, symbols: Tensor) -> Tensor:
        """What is added to the means, before it is rounded, from symbols ``[1, M, h, w]``; 0 where a channel is not predicted."""
        out = torch.zeros_like(symbols)
        if not self.channels:
            return out
        rows = []
        for position, weights in enumerate(self.weights):
            taps = zip(weights, tap_values(symbols, self.channels, position), strict=False)
            used = [weight * WEIGHT_UNIT * values for weight, values in taps if weight]
            rows.append(sum(used[1:], used[0]) if used else torch.zeros_like(symbols[:, 0]))
        return out.index_copy(1, _positions(self.channels, symbols.device), torch.stack(rows, 1))

    def restore(self, residuals: Tensor) -> Tensor:
        """The symbols ``[1, M, h, w]`` whose difference to their rounded prediction is ``residuals``; float64 on the CPU.

        All numbers are multiples of 1/16, so that every machine finds the same.

        Raises:
            ValueError: Symbols grow beyond what a coder writes: the file is forged.
        """
        symbols = residuals.clone()
        for position, (channel, weights) in enumerate(zip(self.channels, self.weights, strict=True)):
            given = torch.zeros_like(symbols[0, channel])
            before = self.channels[max(0, position - BEFORE) : position]
            for weight, other in zip(weights[len(NEIGHBOURS) :], before, strict=False):
                given += weight * WEIGHT_UNIT * symbols[0, other]
            left, above, above_left, above_right = (weight * WEIGHT_UNIT for weight in weights[: len(NEIGHBOURS)])
            plane = F.pad(symbols[0, channel], (1, 1, 1, 0))
            for row in range(1, len(plane)):
                over = plane[row - 1]
                known = given[row - 1] + above * over[1:-1] + above_left * over[:-2] + above_right * over[2:]
                last = 0.0
                values = []
                for residual, start in zip(plane[row, 1:-1].tolist(), known.tolist(), strict=True):
                    last = residual + round(start + left * last)  # halves to even, as torch does
                    if not abs(last) < MAX_SYMBOL:
                        raise ValueError("the adaptation of the prior is absurd: its predictions have no end")
                    values.append(float(last))
                plane[row, 1:-1] = plane.new_tensor(values)
            symbols[0, channel] = plane[1:, 1:-1]
        return symbols

    @cached_property
    def bits(self) -> int:
        """In the file, with the length that stands before them."""
        count = len(self.to_bytes())
        return 8 * (count + (1 if count < 128 else 2))

    def to_bytes(self) -> bytes:
        """For the file."""
        bits = [f"{len(self.channels):08b}"]
        width = max(1, (len(self.gains) - 1).bit_length())
        for channel, weights in zip(self.channels, self.weights, strict=True):
            bits += [f"{channel:0{width}b}", *(golomb(weight, 2) for weight in weights)]
        bits += [golomb(gain, 0) for gain in self.gains]
        return to_bytes("".join(bits))

    @classmethod
    def from_bytes(cls, data: bytes, channels_of_y: int) -> Adaptation:
        """Reads :meth:`to_bytes`, for a model of so many channels of y.

        Raises:
            ValueError: The bytes are not of such a model.
        """
        reader, width = BitReader(data), max(1, (channels_of_y - 1).bit_length())
        channels, weights = [], []
        try:
            for _ in range(reader.number(8)):
                channels.append(reader.number(width))
                weights.append(tuple(reader.golomb(2) for _ in range(TAPS)))
            gains = tuple(reader.golomb(0) for _ in range(channels_of_y))
            rest = len(data) - reader.close()
        except ValueError as error:
            raise ValueError(f"the adaptation of the prior is forged: {error}") from error
        if rest:
            raise ValueError(f"the adaptation of the prior is followed by {rest} bytes more")
        numbers = any(abs(gain) > MAX_GAIN for gain in gains) or any(abs(w) > MAX_WEIGHT for row in weights for w in row)
        unknown = len(set(channels)) < len(channels) or any(channel >= channels_of_y for channel in channels)
        if numbers or unknown or len(channels) > MOST_PREDICTED:
            raise ValueError("the adaptation of the prior is absurd")
        return cls(gains, tuple(channels), tuple(weights))


@lru_cache(maxsize=64)
def _factors(gains: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of the scales, ``[1, M, 1, 1]``; kept, as every step needs them."""
    return torch.tensor([math.exp(gain * GAIN_UNIT) for gain in gains], dtype=dtype, device=device).view(1, -1, 1, 1)


@lru_cache(maxsize=64)
def _positions(channels: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(channels, device=device)


def tap_values(symbols: Tensor, channels: Sequence[int], position: int) -> list[Tensor]:
    """The values that predict the channel at ``position`` of ``channels``, ``[1, h, w]`` each: at most :data:`TAPS`."""
    before = channels[max(0, position - BEFORE) : position]
    return neighbours(symbols[:, channels[position]]) + [symbols[:, other] for other in before]


def neighbours(plane: Tensor) -> list[Tensor]:
    """Of each value of ``plane`` ``[n, h, w]``, those of :data:`NEIGHBOURS`, 0 outside; of the same shape each."""
    height, width = plane.shape[-2:]
    padded = F.pad(plane, (1, 1, 1, 0))
    return [padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in NEIGHBOURS]
