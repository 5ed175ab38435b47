"""How far float64 results of two machines can be apart, and latents moved until that makes no difference to a file.

The coder's table of each y is chosen by a scale that the hyper-synthesis computes from z_hat, in the encoder and in the decoder.
Sums in another order differ in their last digits, and where a scale lies that close to the border between two tables, so may the
table, and all that follows in the string. :func:`with_error_bound` says how far any order of summation is from the exact result;
:func:`settle` moves one symbol of z, in the encoder, where a scale is that close. docs/bitstream.md has the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNIT = 2.0**-53
"""Largest relative error of one float64 operation."""
CAREFUL = 1 + 2.0**-20
"""Factor on bounds, for they are computed in float64 too."""


def with_error_bound(transform: nn.Module, x: Tensor, bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The output of a transform, and how far it can be from the exact one, whatever the order of its sums.

    A dot product of n terms is within ``n UNIT / (1 - n UNIT)`` of the sum of their sizes (Higham 2002, section 3.1), with fused
    multiplications or without; activations do not enlarge an error.

    Args:
        transform: Convolutions, deconvolutions, (leaky) ReLUs and pixel shuffles, in float64.
        x: Input, float64, exact but for ``bound``.
        bound: Bound of the error of each element of ``x``; by default 0.

    Returns:
        Output and bound, of one shape.

    Raises:
        TypeError: The transform has another kind of layer.
    """
    bound = torch.zeros_like(x) if bound is None else bound
    if isinstance(transform, nn.Sequential):
        for layer in transform:
            x, bound = with_error_bound(layer, x, bound)
        return x, bound
    if isinstance(transform, (nn.Conv2d, nn.ConvTranspose2d)):
        weight = transform.weight
        terms = weight[0].numel() if isinstance(transform, nn.Conv2d) else weight.shape[0] * weight[0, 0].numel()
        rounding = (terms + 1) * UNIT / (1 - (terms + 1) * UNIT)
        bias = 0 if transform.bias is None else rounding * transform.bias.abs().view(1, -1, 1, 1)
        sizes = _apply(transform, bound + rounding * (x.abs() + bound), weight.abs())
        return transform(x), CAREFUL * (sizes + bias)
    if isinstance(transform, nn.ReLU):
        return transform(x), bound
    if isinstance(transform, nn.LeakyReLU):
        return transform(x), CAREFUL * (bound + UNIT * x.abs())
    if isinstance(transform, nn.PixelShuffle):
        return transform(x), transform(bound)
    raise TypeError(f"no bound is known for {type(transform).__name__}")


def ambiguous(values: Tensor, bound: Tensor, borders: Tensor) -> Tensor:
    """Which of ``values`` another machine, as far from the exact value on the other side, may find across one of ``borders``.

    Args:
        values: Computed values, float64.
        bound: Bounds of their errors, of the same shape.
        borders: Ascending, ``[n]``.
    """
    reach = 2 * CAREFUL * bound + 4 * UNIT * values.abs()  # the second for the sums below
    below, above = (torch.bucketize(value.contiguous(), borders) for value in (values - reach, values + reach))
    return below != above


def settle(symbols: Tensor, unsettled: Callable[[Tensor], Tensor], reach: int) -> Tensor:
    """The symbols of z, one of them moved by 1 where ``unsettled`` finds an ambiguous scale.

    Args:
        symbols: ``[1, N, h, w]``, integers.
        unsettled: Finds, for symbols, which scales ``[1, M, reach h, reach w]`` are ambiguous.
        reach: Elements of y to one of z, along each side.

    Raises:
        ValueError: No single move is enough.
    """
    found = unsettled(symbols)
    if not found.any():
        return symbols
    row, column = (int(place) // reach for place in found.nonzero()[0, -2:])
    for moved in _moves(symbols, row, column):
        if not unsettled(moved).any():
            return moved
    raise ValueError("a scale is too close to the border between two coding tables, and no move of z settles it")


def _moves(symbols: Tensor, row: int, column: int) -> Iterator[Tensor]:
    for channel in range(symbols.shape[1]):
        for step in (1, -1):
            moved = symbols.clone()
            moved[0, channel, row, column] += step
            yield moved


def _apply(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, weight: Tensor) -> Tensor:
    """The layer with another weight and without its bias."""
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    padding, output_padding = layer.padding, layer.output_padding
    return F.conv_transpose2d(x, weight, None, layer.stride, padding, output_padding, layer.groups, layer.dilation)  # type: ignore[arg-type]
