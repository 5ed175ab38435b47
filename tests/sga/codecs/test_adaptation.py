from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sga.codecs.adaptation import Adaptation

EXAMPLE = Adaptation(
    gains=(0, 3, -12, 0, 0, 12, 0, 0, -1, 0, 0, 0),
    channels=(7, 0, 11),
    weights=((12, 4, -3, 0, 0, 0, 0), (0, 32, -32, 1, 5, 0, 0), (3, 3, 3, 3, -9, 2, 0)),
)


def symbols(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(-40, 41, (1, 12, height, width), generator=generator).double()


def test_bytes_and_back() -> None:
    data = EXAMPLE.to_bytes()
    assert Adaptation.from_bytes(data, 12) == EXAMPLE
    assert len(data) < 40
    empty = Adaptation((0,) * 192, (), ())
    assert Adaptation.from_bytes(empty.to_bytes(), 192) == empty and len(empty.to_bytes()) == 25


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:3],
        lambda data: b"\x09" + data[1:],
        lambda data: b"\xff" * 60,
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: bytes(10**6),
    ],
)
def test_forged_bytes_are_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match="adaptation"):
        Adaptation.from_bytes(change(EXAMPLE.to_bytes()), 12)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (6, 9)])
def test_residuals_become_symbols_again(size: tuple[int, int]) -> None:
    values = symbols(*size)
    residuals = values - EXAMPLE.predict(values).round()
    assert torch.equal(EXAMPLE.restore(residuals), values)
    assert (residuals != values).any() and torch.equal(residuals[:, 1], values[:, 1])


def test_a_prediction_sees_only_what_is_decoded_before_it() -> None:
    """Symbols behind a position, in its channel or a later one, do not change its prediction."""
    values = symbols(6, 9)
    predicted = EXAMPLE.predict(values)
    order = list(EXAMPLE.channels)
    for position, channel in enumerate(order):
        changed = values.clone()
        changed[0, channel, 3, 5:] += 1
        changed[0, channel, 4:] += 1
        for later in order[position + 1 :]:
            changed[0, later] += 1
        now = EXAMPLE.predict(changed)
        assert torch.equal(now[0, channel, :3], predicted[0, channel, :3])
        assert torch.equal(now[0, channel, 3, :6], predicted[0, channel, 3, :6])


def test_a_prediction_without_end_is_refused() -> None:
    forged = Adaptation((0,) * 12, (3,), ((32, 32, 0, 0, 0, 0, 0),))
    with pytest.raises(ValueError, match="no end"):
        forged.restore(torch.ones(1, 12, 4, 4000, dtype=torch.float64))
