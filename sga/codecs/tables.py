"""The entropy coder's integer tables in checkpoints: how files hold them, and whether they are sound.

A coder that runs with tables which are not distributions divides by zero or reads beyond them, so none is used unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compressai.entropy_models import EntropyModel
from compressai.models import CompressionModel
from torch import Tensor

CDF, CDF_LENGTH = "._quantized_cdf", "._cdf_length"
TABLES = ("._offset", CDF, CDF_LENGTH, ".scale_table")
TOTAL = 2**16
"""What each cumulative distribution ends in."""
SHORTEST = 3
"""Least length of a table: 0, one symbol and the escape."""
MOST_VALUES = 2**25
"""Most values of a padded set of tables; those of real models are below 2^21."""
FARTHEST = 2**20
"""Largest size of an offset, the first symbol of a table."""


def check_tables(net: CompressionModel) -> None:
    """Checks the coding tables of a model, in milliseconds: one for each channel of the factorised density and for each scale of
    the Gaussian one, each a strictly increasing row of integers from 0 to 65536.

    Raises:
        ValueError: They are missing or damaged; the message says which and how.
    """
    for name in ("entropy_bottleneck", "gaussian_conditional"):
        model = getattr(net, name, None)
        if model is None:
            continue
        if name == "entropy_bottleneck":
            expected = model.channels
        else:
            scales = model.scale_table.detach().double().cpu()
            if scales.ndim != 1 or not len(scales) or not (scales.isfinite().all() and scales[0] > 0 and (scales.diff() > 0).all()):
                raise ValueError(f"damaged coding tables ({name}: the scales are not positive and increasing)")
            expected = len(scales)
        if fault := _fault(model, expected):
            raise ValueError(f"damaged coding tables ({name}: {fault})")


def _fault(model: EntropyModel, expected: int) -> str | None:
    """What is wrong with the tables of one entropy model that should have ``expected`` of them."""
    values = (model.quantized_cdf, model.cdf_length, model.offset)
    cdf, lengths, offsets = (value.detach().cpu().long() for value in values)
    if any(value.dtype != torch.int32 for value in values) or (cdf.ndim, lengths.ndim, offsets.ndim) != (2, 1, 1):
        return "they are not one row of 32-bit integers each"
    if not len(cdf) == len(lengths) == len(offsets) == expected:
        return f"{expected} are needed, and the shapes are {[list(value.shape) for value in values]}"
    if not ((lengths >= SHORTEST) & (lengths <= cdf.shape[1])).all():
        return f"a length is not from {SHORTEST} to {cdf.shape[1]}"
    if not (offsets.abs() <= FARTHEST).all():
        return f"an offset is beyond {FARTHEST}"
    inside = torch.arange(1, cdf.shape[1]) < lengths[:, None]
    if (cdf[:, 0] != 0).any() or not (cdf.diff(dim=1) > 0)[inside].all():
        return "a table does not increase from 0"
    return f"a table does not end in {TOTAL}" if (cdf.gather(1, lengths[:, None] - 1) != TOTAL).any() else None


def has_tables(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict holds its coding tables."""
    sizes = [value.numel() for key, value in state.items() if key.endswith(CDF)]
    return bool(sizes) and min(sizes) > 0


def without_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose coding tables are empty, as they are in a model that has not been prepared for coding."""
    return {key: value.new_empty(0) if key.endswith(TABLES) else value for key, value in state.items()}


def without_padding(cdf: Tensor, lengths: Tensor) -> Tensor:
    """The coder's tables ``[tables, longest]`` as one row of what each holds: an eighth of the size."""
    return cdf[torch.arange(cdf.shape[1], device=cdf.device) < lengths[:, None]]


def with_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """The tables again.

    Args:
        values: Those of all tables in one row, ``[n]``.
        lengths: Length of each table, ``[tables]``; integers.

    Raises:
        ValueError: The lengths are not of these values; nothing of their size is allocated.
    """
    known = lengths.tolist() if lengths.ndim == 1 and not lengths.is_floating_point() else []
    if not known or min(known) < SHORTEST or sum(known) != len(values) or len(known) * max(known) > MOST_VALUES:
        raise ValueError(f"damaged coding tables (their lengths are not those of {len(values)} values)")
    cdf = values.new_zeros(len(known), max(known))
    cdf[torch.arange(cdf.shape[1]) < lengths[:, None]] = values
    return cdf
