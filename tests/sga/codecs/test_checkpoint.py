from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressai.models import ScaleHyperprior
from torch import Tensor

from sga.codecs import Codec, FactorisedPriorCodec, MeanScaleHyperpriorCodec, ScaleHyperpriorCodec
from sga.codecs.checkpoint import EMBEDDED_PATH, CheckpointError, load_weights, model_hash
from sga.codecs.export import export_compressai, export_safetensors
from sga.loading import LoadedCodec, load_codec
from sga.rate_distortion import Objective
from sga.refinement.rounding import hard_round
from tests.conftest import random_image


def test_a_codec_is_recognised_by_its_weights_alone(any_codec: Codec, tmp_path: Path) -> None:
    export_compressai(any_codec, tmp_path / "model.pth.tar")
    found = load_codec(tmp_path / "model.pth.tar")
    assert type(found.codec) is type(any_codec)
    assert found.model_hash == model_hash(any_codec)
    export_safetensors(any_codec, tmp_path / "model.safetensors", {"lmbda": "8.73", "distortion": "ms_ssim"})
    shipped = load_codec(tmp_path / "model.safetensors")
    assert type(shipped.codec) is type(any_codec)
    assert (shipped.lmbda, shipped.distortion) == (8.73, "ms_ssim")
    assert shipped.model_hash == model_hash(any_codec)


def weights_only(codec: Codec) -> dict[str, Tensor]:
    net = ScaleHyperprior(codec.net.N, codec.net.M)
    return {name: value for name, value in codec.net.state_dict().items() if name in dict(net.named_parameters())}


@pytest.mark.parametrize("kind", ["tables", "no tables", "old names", "network", "data parallel", "half", "lightning"])
def test_foreign_checkpoints_load(kind: str, small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    full = small_codec.net.state_dict()
    fresh = ScaleHyperprior(8, 12)
    fresh.load_state_dict({**fresh.state_dict(), **weights_only(small_codec)})
    empty = fresh.state_dict()  # as an example script saves it: coding tables are there and empty
    content: dict[str, object] = {
        "tables": {"state_dict": full},
        "no tables": {"state_dict": empty},
        "old names": {
            key.replace(".matrices.", "._matrix").replace(".biases.", "._bias").replace(".factors.", "._factor"): value
            for key, value in empty.items()
        },
        "network": {"network": empty},
        "data parallel": {"state_dict": {f"module.{key}": value for key, value in empty.items()}},
        "half": {"state_dict": {key: v.half() if v.is_floating_point() else v for key, v in empty.items()}, "lmbda": 0.013},
        "lightning": {
            "state_dict": {f"codec.net.{key}": value for key, value in empty.items()},
            "hyper_parameters": {"lmbda": 0.05},
        },
    }[kind]
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(content, path)
    loaded = load_codec(path)
    assert loaded.lmbda == {"half": 0.013, "lightning": 0.05}.get(kind)
    x = random_image()
    expected = small_codec.bits(small_codec.quantise(small_codec.analyse(x), hard_round, hard_round)).total
    quantised = loaded.codec.quantise(loaded.codec.analyse(x), hard_round, hard_round)
    torch.testing.assert_close(loaded.codec.bits(quantised).total, expected, rtol=0.05, atol=0)
    decoded = loaded.codec.decode(loaded.codec.encode(quantised), 64, 128)
    assert torch.equal(decoded, quantised.y_hat)
    # Constants that underflow in half precision must be the code's own.
    assert loaded.codec.net.gaussian_conditional.likelihood_lower_bound.bound.item() == pytest.approx(1e-9)


def test_weights_load_into_a_model_in_training_without_tables(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "full.pth"
    torch.save(small_codec.net.state_dict(), path)
    codec = ScaleHyperpriorCodec(N=8, M=12)
    load_weights(codec, path)
    assert torch.equal(codec.net.g_a[0].weight, small_codec.net.g_a[0].weight)
    assert codec.net.gaussian_conditional.quantized_cdf.numel() == 0
    with pytest.raises(CheckpointError, match="do not fit"):
        load_weights(ScaleHyperpriorCodec(N=16, M=12), path)


def test_a_warm_start_takes_what_another_architecture_shares(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "scale.pth"
    torch.save(small_codec.net.state_dict(), path)
    mean_scale, factorised = MeanScaleHyperpriorCodec(N=8, M=12), FactorisedPriorCodec(N=8, M=12)
    before = factorised.net.entropy_bottleneck.quantiles.clone()
    new = load_weights(mean_scale, path)
    assert {"h_s.0.weight", "h_s.2.weight", "h_s.4.weight"} <= set(new) and not any(name.startswith("g_") for name in new)
    assert {name.partition(".")[0] for name in load_weights(factorised, path)} == {"entropy_bottleneck"}
    for codec in (mean_scale, factorised):
        assert torch.equal(codec.net.g_s[0].weight, small_codec.net.g_s[0].weight)
    assert torch.equal(factorised.net.entropy_bottleneck.quantiles, before)


def test_what_is_no_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_codec(tmp_path / "missing.pth")
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(CheckpointError, match="damaged or no"):
            load_codec(tmp_path / name)
    torch.save({"state_dict": {"conv.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="unknown architecture"):
        load_codec(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="ARCHITECTURE/METRIC/QUALITY"):
        load_codec("zoo:nonsense")


def test_embedded_checkpoint_holds_its_tables_and_its_lambda(embedded: LoadedCodec) -> None:
    assert EMBEDDED_PATH.stat().st_size <= 13e6
    assert embedded.lmbda == 0.013
    assert (embedded.codec.net.N, embedded.codec.net.M) == (128, 320)
    assert not any(parameter.requires_grad for parameter in embedded.codec.parameters())


def test_the_objective_is_that_of_the_training_but_for_what_is_given(small_codec: ScaleHyperpriorCodec) -> None:
    loaded = LoadedCodec(small_codec, 0.013, "mse", bytes(6))
    assert loaded.objective() == loaded.objective(distortion="mse") == Objective(0.013, "mse")
    assert loaded.objective(0.05) == Objective(0.05, "mse")
    assert loaded.objective(8, "ms_ssim") == Objective(8.0, "ms_ssim")
    similar = LoadedCodec(small_codec, 16.64, "ms_ssim", bytes(6))
    assert similar.objective() == Objective(16.64, "ms_ssim")
    assert similar.objective(3.0) == Objective(3.0, "ms_ssim") and similar.objective(0.01, "mse") == Objective(0.01, "mse")


def test_an_objective_that_is_not_known_asks_for_a_lambda(small_codec: ScaleHyperpriorCodec) -> None:
    with pytest.raises(ValueError, match=r"do not compare: give a lambda \(lmbda\) with the distortion ms_ssim"):
        LoadedCodec(small_codec, 0.013, "mse", bytes(6)).objective(distortion="ms_ssim")
    unknown = LoadedCodec(small_codec, None, "mse", bytes(6))
    with pytest.raises(ValueError, match=r"does not say the lambda it was trained with: give one \(lmbda\)"):
        unknown.objective()
    assert unknown.objective(0.02) == Objective(0.02, "mse")


@pytest.mark.parametrize("lmbda", [0.0, -0.013, float("nan"), float("inf")])
def test_a_lambda_out_of_range_is_refused(lmbda: float, embedded: LoadedCodec) -> None:
    with pytest.raises(ValueError, match="lmbda must be above 0"):
        embedded.objective(lmbda)


def test_a_loaded_codec_moves_to_a_device(small_codec: ScaleHyperpriorCodec) -> None:
    loaded = LoadedCodec(small_codec, 0.013, "mse", bytes(6))
    assert loaded.device == torch.device("cpu")
    moved = loaded.to("meta")
    assert moved.codec is small_codec and moved.device.type == "meta"
    assert {value.device.type for value in moved.codec.state_dict().values()} == {"meta"}
    assert (moved.lmbda, moved.distortion, moved.model_hash) == (0.013, "mse", bytes(6))
