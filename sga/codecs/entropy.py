"""CompressAI's entropy models as functions: bits of a batch, and one image's symbols to a string and back.

With the adapters, the only place that touches private parts of CompressAI (checked against 1.2.8).
"""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from torch import Tensor

from sga.codecs import rans
from sga.codecs.adaptation import MAX_SYMBOL
from sga.codecs.latents import Prior

SHORTEST = 0.5
"""Share of its symbols' least information that a string has at the least; the coder's state makes it differ a little from 1."""


def gaussian_bits(model: GaussianConditional, y_hat: Tensor, prior: Prior) -> Tensor:
    """Bits of each element of ``y_hat`` under N(means, scales^2) convolved with U(-1/2, 1/2); of its shape."""
    likelihood = model.likelihood_lower_bound(model._likelihood(y_hat, prior.scales, prior.means))
    return -torch.log2(likelihood)


def factorised_bits(model: EntropyBottleneck, z_hat: Tensor) -> Tensor:
    """Bits of each element of ``z_hat`` ``[B, N, h, w]`` under the learned factorised density; of its shape.

    ``EntropyBottleneck.forward`` would round its input again, so the density is asked directly.
    """
    values = z_hat.transpose(0, 1).flatten(2)  # [N, B, h*w]
    channels, batch, _ = values.shape
    likelihood, _, _ = model._likelihood(values.reshape(channels, 1, -1))
    bits = -torch.log2(model.likelihood_lower_bound(likelihood))
    return bits.reshape(channels, batch, *z_hat.shape[2:]).transpose(0, 1)


def medians(model: EntropyBottleneck, dtype: torch.dtype) -> Tensor:
    """Offsets about which each channel of a factorised density is rounded and coded, ``[1, N, 1, 1]``."""
    return model.quantiles[:, 0, 1].detach().to(dtype).view(1, -1, 1, 1)


def table_borders(model: GaussianConditional, nearest: bool = False) -> Tensor:
    """Scales between which each coding table is used, ascending, float64 on the CPU.

    Args:
        model: With its scale table.
        nearest: Whether a scale takes the nearest table on a log grid, which costs fewer bits, or, as in CompressAI, the first
            whose scale is not below it.
    """
    scales = model.scale_table.detach().double().cpu()
    return (scales[:-1] * scales[1:]).sqrt() if nearest else scales[:-1]


def table_indexes(model: GaussianConditional, scales: Tensor, nearest: bool = False) -> Tensor:
    """Index of the coding table of each scale; see :func:`table_borders`. int32, the shape of ``scales``."""
    return torch.bucketize(scales, table_borders(model, nearest).to(scales)).int()


def channel_indexes(symbols: Tensor) -> Tensor:
    """Index of the coding table of each element of factorised latents ``[1, N, h, w]``: its channel. int32, the same shape."""
    channels = torch.arange(symbols.shape[1], dtype=torch.int32)
    return channels.view(1, -1, 1, 1).expand(symbols.shape)


def require_symbols(symbols: Tensor) -> None:
    """Raises ValueError where a symbol is not finite or is absurdly large."""
    if not symbols.abs().max() < MAX_SYMBOL:  # NaN too
        raise ValueError("latents diverged: their values are not finite or absurdly large; use a smaller learning rate")


def compress(model: EntropyModel, symbols: Tensor, indexes: Tensor) -> bytes:
    """The string of integer-valued ``symbols`` (batch of 1, on the CPU), each coded with the table of its index.

    Raises:
        ValueError: A symbol is not finite or is absurdly large.
        RuntimeError: The coding tables were not made.
    """
    tables = _tables(model)
    require_symbols(symbols)
    return rans.encode(symbols, indexes, tables)


def decompress(model: EntropyModel, string: bytes, indexes: Tensor) -> Tensor:
    """The symbols of a string, float64 on the CPU, the shape of ``indexes``.

    Raises:
        ValueError: The string is not one of :func:`compress` for these tables and as many symbols.
        RuntimeError: The coding tables were not made.
    """
    least_bits = float(_tables(model).least_bits[indexes.reshape(-1).long()].sum())
    if isinstance(string, rans.InlineString):
        try:  # the fast way, which holds where there is no escape
            return decompress(model, bytes(string), indexes)
        except ValueError:
            pass
    decoder = StreamDecoder(model, string, indexes.numel(), least_bits)
    symbols = decoder.next(indexes)
    decoder.finish()
    return symbols


class StreamDecoder:
    """The symbols of a string, some at a time, for a prior that depends on the symbols before.

    Args:
        model: With coding tables.
        string: What :func:`compress` wrote.
        count: Number of all its symbols.
        least_bits: Bits that they have at least; by default those of the likeliest symbol of all tables.

    Raises:
        ValueError: The string is too short for so many symbols.
        RuntimeError: The coding tables were not made.
    """

    def __init__(self, model: EntropyModel, string: bytes, count: int, least_bits: float | None = None) -> None:
        tables = _tables(model)
        if least_bits is None:
            least_bits = count * float(tables.least_bits.min())
        if 8 * len(string) < SHORTEST * least_bits:  # before memory is taken for them
            raise ValueError(f"a string of {len(string)} bytes is too short for {count} symbols")
        inline = isinstance(string, rans.InlineString)
        self._decoder = rans.InlineDecoder(string, tables) if inline else rans.Decoder(string, count, tables)

    def next(self, indexes: Tensor) -> Tensor:
        """As many symbols as there are ``indexes`` of tables; float64, of their shape."""
        symbols = self._decoder.next(indexes)
        if symbols.abs().max() >= MAX_SYMBOL:
            raise ValueError("symbols are absurdly large")
        return symbols.double()

    def finish(self) -> None:
        """To be called behind the last symbol; raises ValueError where the string holds more or other things than symbols."""
        self._decoder.finish()


def _tables(model: EntropyModel) -> rans.Tables:
    if model.quantized_cdf.numel() == 0:
        raise RuntimeError("the codec has no coding tables: call make_tables() once before coding")
    return rans.Tables(model.quantized_cdf.cpu(), model.cdf_length.cpu().long(), model.offset.cpu().long())
