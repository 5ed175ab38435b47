"""CompressAI's entropy models as functions: bits of a batch, and one image's symbols to a string and back.

With the adapters, the only place that touches private parts of CompressAI (checked against 1.2.8).
"""

from __future__ import annotations

import torch
from compressai.ans import RansDecoder
from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from torch import Tensor

from sga.codecs.adaptation import MAX_SYMBOL
from sga.codecs.latents import Prior


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


def table_indexes(model: GaussianConditional, scales: Tensor, nearest: bool = False) -> Tensor:
    """Index of the coding table of each scale: the first whose scale is not below it, as in CompressAI, or the nearest on a log
    grid, which costs fewer bits. int32, the shape of ``scales``."""
    borders = model.scale_table.to(scales)[:-1]
    if nearest:
        borders = (borders * model.scale_table.to(scales)[1:]).sqrt()
    return torch.bucketize(scales, borders).int()


def channel_indexes(symbols: Tensor) -> Tensor:
    """Index of the coding table of each element of factorised latents ``[1, N, h, w]``: its channel. int32, the same shape."""
    channels = torch.arange(symbols.shape[1], dtype=torch.int32)
    return channels.view(1, -1, 1, 1).expand(symbols.shape)


def compress(model: EntropyModel, symbols: Tensor, indexes: Tensor) -> bytes:
    """The string of integer-valued ``symbols`` (batch of 1, on the CPU), each coded with the table of its index.

    Raises:
        ValueError: A symbol is not finite or is absurdly large.
        RuntimeError: The coding tables were not made.
    """
    _require_tables(model)
    if not symbols.abs().max() < MAX_SYMBOL:  # NaN too; the coder would not end
        raise ValueError("latents diverged: their values are not finite or absurdly large; use a smaller learning rate")
    return EntropyModel.compress(model, symbols, indexes)[0]


def decompress(model: EntropyModel, string: bytes, indexes: Tensor) -> Tensor:
    """The symbols of a string, float64 on the CPU, the shape of ``indexes``."""
    _require_tables(model)
    # The parent's method, on the CPU: the bottleneck's own builds float32 values about its medians.
    values = model.entropy_coder.decode_with_indexes(
        string,
        indexes.reshape(-1).tolist(),
        model.quantized_cdf.tolist(),
        model.cdf_length.tolist(),
        model.offset.tolist(),
    )
    return torch.tensor(values, dtype=torch.float64).reshape(indexes.shape)


class StreamDecoder:
    """The symbols of a string, some at a time, for a prior that depends on the symbols before.

    Args:
        model: With coding tables.
        string: What :func:`compress` wrote.

    Raises:
        RuntimeError: The coding tables were not made.
    """

    def __init__(self, model: EntropyModel, string: bytes) -> None:
        _require_tables(model)
        self._lengths, self._offsets = model.cdf_length.tolist(), model.offset.tolist()
        self._tables = [row[:length] for row, length in zip(model.quantized_cdf.tolist(), self._lengths, strict=True)]
        self._decoder = RansDecoder()
        self._decoder.set_stream(string)

    def next(self, indexes: Tensor) -> Tensor:
        """As many symbols as there are ``indexes`` of tables; float64, of their shape."""
        # Every call copies its tables, and the last ones, of scales that hardly occur, are long.
        used = int(indexes.max()) + 1
        tables = (self._tables[:used], self._lengths[:used], self._offsets[:used])
        values = self._decoder.decode_stream(indexes.flatten().tolist(), *tables)
        return torch.tensor(values, dtype=torch.float64).reshape(indexes.shape)


def _require_tables(model: EntropyModel) -> None:
    if model.quantized_cdf.numel() == 0:
        raise RuntimeError("the codec has no coding tables: call make_tables() once before coding")
