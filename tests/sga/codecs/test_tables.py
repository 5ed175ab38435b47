from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sga.codecs import Codec, ScaleHyperpriorCodec
from sga.codecs.checkpoint import CheckpointError
from sga.codecs.export import export_safetensors
from sga.codecs.tables import check_tables, with_padding, without_padding, without_tables
from sga.loading import load_codec

Z, Y = "entropy_bottleneck.", "gaussian_conditional."
State = dict[str, Tensor]


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, name: change(state[name].clone())}


def filled(place: tuple[int, ...] | int, number: float) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        value[place] = number
        return value

    return change


FAULTS: dict[str, tuple[str, Callable[[State], State]]] = {
    "zeroed": ("a table does not increase from 0", changed(f"{Y}_quantized_cdf", torch.zeros_like)),
    "zeroed z": ("a table does not increase from 0", changed(f"{Z}_quantized_cdf", torch.zeros_like)),
    "first": ("a table does not increase from 0", changed(f"{Z}_quantized_cdf", filled((3, 0), 1))),
    "falls": ("a table does not increase from 0", changed(f"{Y}_quantized_cdf", filled((5, 2), 70_000))),
    "overflows": ("a table does not increase from 0", changed(f"{Y}_quantized_cdf", filled((5, 1), -(2**31)))),
    "repeats": ("a table does not increase from 0", changed(f"{Y}_quantized_cdf", filled((5, 1), 0))),
    "half": (
        "a table does not end in 65536",
        changed(f"{Y}_quantized_cdf", lambda value: value // 2 + torch.arange(value.shape[1])),
    ),
    "offset": ("an offset is beyond", changed(f"{Z}_offset", filled(2, -(2**31)))),
    "length 0": ("a length is not from 3", changed(f"{Z}_cdf_length", filled(0, 0))),
    "length -1": ("a length is not from 3", changed(f"{Y}_cdf_length", filled(0, -1))),
    "length": ("a length is not from 3", changed(f"{Y}_cdf_length", filled(0, 2**31 - 1))),
    "fewer": ("64 are needed", changed(f"{Y}_quantized_cdf", lambda value: value[:-1])),
    "fewer offsets": ("8 are needed", changed(f"{Z}_offset", lambda value: value[:-1])),
    "flat": ("they are not one row", changed(f"{Y}_quantized_cdf", torch.flatten)),
    "scale": ("the scales are not positive", changed(f"{Y}scale_table", filled(3, float("inf")))),
    "scale 0": ("the scales are not positive", changed(f"{Y}scale_table", filled(0, 0))),
    "scales": ("the scales are not positive", changed(f"{Y}scale_table", lambda value: value.flip(0))),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_damaged_tables_are_refused_when_a_checkpoint_is_read(kind: str, small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    message, damage = FAULTS[kind]
    torch.save({"state_dict": damage(dict(small_codec.net.state_dict()))}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=rf"model\.pth: damaged coding tables \(\w+: {message}.*export it again") as error:
        load_codec(tmp_path / "model.pth")
    assert "\n" not in str(error.value)


def test_tables_of_every_codec_are_sound_and_missing_ones_are_not(any_codec: Codec) -> None:
    check_tables(any_codec.net)
    any_codec.net.entropy_bottleneck._quantized_cdf = torch.zeros(0, dtype=torch.int32)
    with pytest.raises(ValueError, match="damaged coding tables"):
        check_tables(any_codec.net)


def test_tables_are_made_anew_where_a_checkpoint_holds_none(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    torch.save(without_tables(small_codec.net.state_dict()), tmp_path / "model.pth")
    loaded = load_codec(tmp_path / "model.pth").codec.net
    assert torch.equal(loaded.gaussian_conditional.quantized_cdf, small_codec.net.gaussian_conditional.quantized_cdf)


@pytest.mark.parametrize("lengths", [[-1, 8], [2**31 - 1, 4], [2, 5], [3, 3], [], [[3, 4]], [3.0, 4.0], [0, 7]], ids=str)
def test_packed_tables_with_other_lengths_allocate_nothing(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="damaged coding tables"):
        with_padding(torch.arange(7, dtype=torch.int32), torch.tensor(lengths))


def test_packed_tables_that_would_unpack_to_gigabytes_are_refused() -> None:
    lengths = torch.tensor([3] * 100_000 + [60_000])
    with pytest.raises(ValueError, match="damaged coding tables"):
        with_padding(torch.zeros(int(lengths.sum()), dtype=torch.int32), lengths)


def test_packed_tables_are_those_that_were_packed(small_codec: ScaleHyperpriorCodec) -> None:
    model = small_codec.net.gaussian_conditional
    assert torch.equal(with_padding(without_padding(model.quantized_cdf, model.cdf_length), model.cdf_length), model.quantized_cdf)


def test_a_shipped_file_with_damaged_lengths_is_refused(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    export_safetensors(small_codec, path, {})
    state = load_file(path)
    for damage in (torch.full_like(state[f"{Z}_cdf_length"], -5), None):
        broken = {name: value for name, value in state.items() if name != f"{Z}_cdf_length"}
        save_file(broken if damage is None else {**broken, f"{Z}_cdf_length": damage}, path)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load_codec(path)
