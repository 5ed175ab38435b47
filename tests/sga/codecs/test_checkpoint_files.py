"""Checkpoints of other programs and other people: what loads, what is refused in one line, and that nothing is executed."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sga.codecs import Codec, ScaleHyperpriorCodec
from sga.codecs.checkpoint import CheckpointError, load_weights, model_hash
from sga.codecs.export import export_compressai
from sga.loading import load_codec

State = dict[str, Tensor]


class Executes:
    """Creates a folder when its pickle is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def refusal(content: Any, path: Path) -> str:
    """The line that refuses a file of this content, for use and for a warm start alike, without the path."""
    torch.save(content, path)
    lines = []
    for load in (load_codec, lambda name: load_weights(ScaleHyperpriorCodec(N=8, M=12), name)):
        with pytest.raises(CheckpointError) as error:
            load(path)
        lines.append(str(error.value))
    assert lines[0] == lines[1] and "\n" not in lines[0] and str(path) in lines[0]
    return lines[0].replace(str(path), "FILE")


@pytest.fixture
def state(small_codec: ScaleHyperpriorCodec) -> State:
    return dict(small_codec.net.state_dict())


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module.",
        "model.",
        "net.",
        "codec.net.",
        "codec.net._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "model.module._orig_mod.",
        "model.codec.net.",
        "module.codec.net.module.",
    ],
)
def test_prefixes_are_taken_off_as_often_as_they_are_there(
    prefix: str, state: State, small_codec: ScaleHyperpriorCodec, tmp_path: Path
) -> None:
    others = {"loss.weight": torch.ones(2), "n_averaged": torch.tensor(3)}
    torch.save({"state_dict": {**{prefix + name: value for name, value in state.items()}, **others}}, tmp_path / "model.pth")
    assert model_hash(load_codec(tmp_path / "model.pth").codec) == model_hash(small_codec)


def test_a_compiled_part_of_a_model_has_its_name(state: State, small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    renamed = {name.replace("g_a.", "g_a._orig_mod.").replace("h_s.", "h_s._orig_mod."): value for name, value in state.items()}
    torch.save(renamed, tmp_path / "model.pth")
    assert model_hash(load_codec(tmp_path / "model.pth").codec) == model_hash(small_codec)


NESTED: dict[str, Callable[[State], dict[str, Any]]] = {
    "model": lambda state: {"model": state, "epoch": 3},
    "network": lambda state: {"network": state},
    "net": lambda state: {"net": {f"module.{name}": value for name, value in state.items()}},
    "twice": lambda state: {"model": {"state_dict": state}, "optimizer": {"state": {}}},
    "three": lambda state: {"state_dict": {"model": {"net": state}}},
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_state_dict_is_found_where_programs_put_it(
    kind: str, state: State, small_codec: ScaleHyperpriorCodec, tmp_path: Path
) -> None:
    torch.save({**NESTED[kind](state), "lmbda": 0.05}, tmp_path / "model.pth")
    loaded = load_codec(tmp_path / "model.pth")
    assert model_hash(loaded.codec) == model_hash(small_codec) and loaded.lmbda == 0.05


def test_a_state_dict_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    assert "nested too deep: save its weights alone" in refusal(content, tmp_path / "model.pth")


OTHERS: dict[str, tuple[Callable[[State], Any], str]] = {
    "namespace": (lambda state: {"state_dict": state, "args": argparse.Namespace(lmbda=0.013)}, "argparse.Namespace"),
    "scalar": (lambda state: {"state_dict": state, "loss": np.float64(1.2)}, "multiarray.scalar"),
    "module": (lambda state: nn.Sequential(nn.Conv2d(3, 3, 1)), "torch.nn.modules.container.Sequential"),
    "path": (lambda state: {"state_dict": state, "hyper_parameters": {"root": Path("x")}}, "pathlib"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_types_are_named_and_not_called_damage(
    kind: str, zipped: bool, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, name = OTHERS[kind]
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, path: save(content, path, _use_new_zipfile_serialization=zipped))
    line = refusal(make(state), tmp_path / "model.pth")
    assert line.startswith("FILE holds more than weights, ") and name in line and "damaged" not in line
    assert line.endswith("save its weights alone, torch.save(model.state_dict(), FILE)")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["whole", "value", "key", "metadata", "beside"])
def test_nothing_in_a_checkpoint_is_executed(place: str, zipped: bool, state: State, tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "model.pth"
    bad = Executes(trace)
    content: Any = {
        "whole": bad,
        "value": {"state_dict": {**state, "extra": bad}},
        "key": {"state_dict": {**state, bad: 1}},
        "metadata": {"state_dict": state, "hyper_parameters": bad},
        "beside": {"state_dict": state, "callbacks": [bad]},
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for suffix in (".pth", ".safetensors", ".ckpt"):
        with pytest.raises(CheckpointError):
            load_codec(path.rename(path.with_suffix(suffix)))
        path = path.with_suffix(suffix)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file would not have run anything"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["g_s.0.weight", "entropy_bottleneck.quantiles", "h_a.4.bias"])
def test_weights_that_are_not_finite_are_refused_by_name(name: str, value: float, state: State, tmp_path: Path) -> None:
    state[name] = state[name].clone()
    state[name].view(-1)[-1] = value
    assert refusal({"state_dict": state}, tmp_path / "model.pth").startswith(f"FILE: {name} holds NaN or infinity")


def test_densities_whose_search_would_not_end_are_refused(state: State, tmp_path: Path) -> None:
    state["entropy_bottleneck.matrices.1"] = torch.full_like(state["entropy_bottleneck.matrices.1"], 1e38)
    assert "entropy_bottleneck.matrices.1 holds values beyond" in refusal(state, tmp_path / "model.pth")


def test_an_expanded_tensor_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    line = refusal({"g_a.6.weight": torch.zeros(1).expand(100_000, 100_000), "h_a.4.weight": torch.zeros(1)}, path)
    assert path.stat().st_size < 4096
    assert "claims 40000000004 bytes of weights, most in g_a.6.weight [100000, 100000]" in line


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch about sparse tensors
@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_tensors_without_their_values_are_refused(kind: str, tmp_path: Path) -> None:
    places, shape = torch.zeros(2, 1, dtype=torch.long), (100_000, 100_000)
    value = torch.sparse_coo_tensor(places, torch.ones(1), shape) if kind == "sparse" else torch.empty(shape, device="meta")
    line = refusal({"g_a.6.weight": value}, tmp_path / "model.pth")
    assert "no plain tensor" in line or "claims" in line or "holds more than weights" in line


@pytest.mark.parametrize("shape", [(1_000_000, 1, 1, 1), (1, 1_000_000, 1, 1), (1500, 1500, 0, 0)])
def test_channels_without_their_weights_make_no_model(shape: tuple[int, ...], state: State, tmp_path: Path) -> None:
    torch.save({**state, "g_a.6.weight": torch.zeros(shape)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=rf"a layer of {max(shape)} channels, and not the weights"):
        load_codec(tmp_path / "model.pth")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("shape", [(), (5,), (0, 0, 5, 5), (12, 0, 5, 5)])
def test_shapes_of_no_model_are_refused(shape: tuple[int, ...], any_codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    export_compressai(any_codec, path)
    state = torch.load(path, weights_only=True)["state_dict"]
    for name in ("g_a.6.weight", "g_a.0.conv1.weight"):
        if name in state:
            state[name] = torch.zeros(shape)
    torch.save(state, path)
    with pytest.raises(CheckpointError):
        load_codec(path)


@pytest.mark.parametrize(
    "value", [0, 0.0, -0.013, float("nan"), float("inf"), "high", "nan", [0.01], True, {}, torch.ones(2)], ids=str
)
def test_a_lambda_that_is_none_is_refused(value: object, state: State, tmp_path: Path) -> None:
    for content in ({"state_dict": state, "lmbda": value}, {"state_dict": state, "hyper_parameters": {"lmbda": value}}):
        line = refusal(content, tmp_path / "model.pth")
        assert line.startswith("FILE: its entry lmbda is ") and "not a number above 0: save the file with" in line


@pytest.mark.parametrize("value", [0.013, "0.013", torch.tensor(0.013), None], ids=str)
def test_a_lambda_is_a_number_or_its_text(value: object, state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state, "lmbda": value}, tmp_path / "model.pth")
    assert load_codec(tmp_path / "model.pth").lmbda == (None if value is None else pytest.approx(0.013))


@pytest.mark.parametrize(
    ("value", "known"),
    [("MSE", "mse"), ("mse", "mse"), ("ms-ssim", "ms_ssim"), ("MS-SSIM", "ms_ssim"), ("ms_ssim", "ms_ssim"), (None, "mse")],
)
def test_a_distortion_is_known_in_any_spelling(value: str | None, known: str, state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state, "distortion": value}, tmp_path / "model.pth")
    assert load_codec(tmp_path / "model.pth").distortion == known


@pytest.mark.parametrize("value", ["lpips", "", 3, ["mse"]], ids=str)
def test_another_distortion_is_refused_with_those_that_are_known(value: object, state: State, tmp_path: Path) -> None:
    line = refusal({"state_dict": state, "distortion": value}, tmp_path / "model.pth")
    assert line.startswith("FILE: its entry distortion is ") and "not one of mse, ms_ssim" in line


def test_no_hyper_parameters_are_none_and_others_than_a_mapping_are_refused(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state, "hyper_parameters": None}, tmp_path / "none.pth")
    assert load_codec(tmp_path / "none.pth").lmbda is None
    line = refusal({"state_dict": state, "hyper_parameters": [0.013]}, tmp_path / "model.pth")
    assert line.startswith("FILE: its entry hyper_parameters is [0.013] and no mapping")


def test_a_file_that_claims_more_bytes_than_it_has_is_damaged(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_codec(path)
    torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_codec(path)


def test_a_compressed_part_is_refused_before_it_expands(tmp_path: Path) -> None:
    """20 MB of zeros in a file of 20 kB."""
    plain, path = tmp_path / "plain.pth", tmp_path / "model.pth"
    torch.save({"g_a.0.weight": torch.zeros(3)}, plain)
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for part in whole.infolist():
            content = whole.read(part) + (bytes(20_000_000) if part.filename.endswith("data.pkl") else b"")
            file.writestr(part.filename, content)
    assert path.stat().st_size < 30_000
    with pytest.raises(CheckpointError, match=r"data\.pkl in it is compressed, as torch\.save never writes it"):
        load_codec(path)
