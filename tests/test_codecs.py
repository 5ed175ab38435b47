from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressai.models import ScaleHyperprior
from compressai.utils.eval_model.__main__ import load_checkpoint
from torch import Tensor

from data.images import pad, to_float
from lightning_modules.codecs import (
    Codec,
    ContextModelCodec,
    FactorisedPriorCodec,
    MeanScaleHyperpriorCodec,
    Quantised,
    ScaleHyperpriorCodec,
)
from lightning_modules.codecs.checkpoint import (
    EMBEDDED_PATH,
    CheckpointError,
    LoadedCodec,
    load_codec,
    load_weights,
    model_hash,
)
from lightning_modules.codecs.export import export_compressai, export_safetensors
from lightning_modules.rounding import hard_round
from tests.conftest import random_codec


def image(height: int = 64, width: int = 128) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def gain_of(quantised: Quantised) -> float | None:
    return None if quantised.gain is None else float(quantised.gain)


@pytest.mark.parametrize(
    "adapter", [adapter for adapter in Codec.adapters() if not (issubclass(adapter, ContextModelCodec) or adapter.variable_rate)]
)
def test_bits_are_those_of_compressai(adapter: type[Codec]) -> None:
    codec, x = random_codec(adapter), image()
    quantised = codec.quantise(codec.analyse(x), hard_round)
    bits = codec.bits(quantised)
    expected = codec.net(x)
    torch.testing.assert_close(bits.y.sum(), -expected["likelihoods"]["y"].log2().sum())
    if quantised.z_hat is None:
        assert bits.z == 0
    else:
        torch.testing.assert_close(bits.z.sum(), -expected["likelihoods"]["z"].log2().sum())
    torch.testing.assert_close(codec.synthesise(quantised.y_hat), expected["x_hat"])


def test_bits_of_a_batch_are_those_of_its_images(any_codec: Codec) -> None:
    x = torch.cat([image(), image().flip(-1) * 0.5])
    together = any_codec.bits(any_codec.quantise(any_codec.analyse(x), hard_round))
    for i in range(2):
        alone = any_codec.bits(any_codec.quantise(any_codec.analyse(x[i : i + 1]), hard_round))
        torch.testing.assert_close(together.y[i : i + 1], alone.y)
        torch.testing.assert_close(together.z[i : i + 1], alone.z)


def test_hyper_latents_are_rounded_about_their_medians(small_codec: ScaleHyperpriorCodec) -> None:
    quantised = small_codec.quantise(small_codec.analyse(image()), hard_round)
    medians = small_codec.net.entropy_bottleneck.quantiles[:, 0, 1].view(1, -1, 1, 1)
    assert quantised.z_hat is not None and medians.abs().max() > 0.1
    symbols = quantised.z_hat - medians
    torch.testing.assert_close(symbols, symbols.round(), atol=1e-5, rtol=0)


def test_strings_decode_to_the_latents(any_codec: Codec) -> None:
    quantised = any_codec.quantise(any_codec.analyse(image(192, 64) * 3), hard_round)
    assert quantised.y_hat.abs().max() >= 1
    decoded = any_codec.decode(any_codec.encode(quantised), 192, 64, gain_of(quantised))
    torch.testing.assert_close(decoded, any_codec.dequantise(quantised), atol=1e-5, rtol=0)


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


def test_strings_decode_through_compressai_itself(any_codec: Codec, photograph: Tensor) -> None:
    x = pad(to_float(photograph)[None, :, 100:261, 200:297], 64)
    quantised = any_codec.quantise(any_codec.analyse(x), hard_round)
    net = type(any_codec.net).from_state_dict(any_codec.net.state_dict()).eval()
    shape = tuple(side // any_codec.stride for side in x.shape[-2:])
    strings = [[string] for string in any_codec.encode(quantised)]
    # The coder's indexes are computed in float64 here, so that they are the same on every machine.
    torch.set_default_dtype(torch.float64)  # CompressAI's serial decoder begins with zeros of it
    try:
        if any_codec.variable_rate:
            decoded = net.double().decompress(strings, shape, inputscale=torch.tensor(gain_of(quantised)))["x_hat"]
        else:
            decoded = net.double().decompress(strings, shape)["x_hat"]
    finally:
        torch.set_default_dtype(torch.float32)
    expected = any_codec.synthesise(any_codec.dequantise(quantised)).clamp(0, 1)
    torch.testing.assert_close(decoded.float(), expected, atol=1e-4, rtol=0)


def test_coding_without_tables_says_what_to_do() -> None:
    codec = ScaleHyperpriorCodec(N=8, M=12)
    with torch.no_grad():
        quantised = codec.quantise(codec.analyse(image()), hard_round)
    with pytest.raises(RuntimeError, match="make_tables"):
        codec.encode(quantised)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_transforms_are_the_same_function(any_codec: Codec, dtype: torch.dtype) -> None:
    exact = dtype == torch.float32
    fast = any_codec.frozen(dtype)
    y = (torch.randn(1, any_codec.net.M, 4, 8) * 3).requires_grad_()
    grads, outputs = [], []
    for codec in (any_codec, fast):
        x_hat = codec.synthesise(y)
        grads.append(torch.autograd.grad(x_hat.square().mean(), y)[0])
        outputs.append(x_hat.detach())
    for slow, quick in (outputs, grads):
        error = (slow - quick).norm() / slow.norm()
        assert error < (1e-5 if exact else 3e-2)
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_frozen_forward_gdn_has_the_right_gradient(small_codec: ScaleHyperpriorCodec) -> None:
    from lightning_modules.codecs.frozen import FrozenTransform

    x = image().requires_grad_()
    slow, quick = small_codec.net.g_a, FrozenTransform(small_codec.net.g_a, torch.float32)
    expected, found = (torch.autograd.grad(transform(x).square().sum(), x)[0] for transform in (slow, quick))
    assert (expected - found).norm() / expected.norm() < 1e-4


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
    x = image()
    expected = small_codec.bits(small_codec.quantise(small_codec.analyse(x), hard_round)).total
    quantised = loaded.codec.quantise(loaded.codec.analyse(x), hard_round)
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


def test_shipped_form_keeps_model_and_tables(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    export_safetensors(small_codec, path, {"lmbda": "0.013"})
    loaded = load_codec(path)
    assert loaded.lmbda == 0.013
    assert loaded.model_hash == model_hash(small_codec)
    with torch.no_grad():
        loaded.codec.net.g_s[0].weight[0, 0, 0, 0] += 1e-3
    assert model_hash(loaded.codec) != loaded.model_hash


def test_embedded_checkpoint_holds_its_tables_and_its_lambda(embedded: LoadedCodec) -> None:
    assert EMBEDDED_PATH.stat().st_size <= 12e6
    assert embedded.lmbda == 0.013
    assert (embedded.codec.net.N, embedded.codec.net.M) == (128, 192)
    assert not any(parameter.requires_grad for parameter in embedded.codec.parameters())


def test_exported_checkpoint_is_one_of_compressai(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "small.pth.tar"
    export_compressai(small_codec, path)
    net = load_checkpoint("bmshj2018-hyperprior", True, str(path))
    x = image()
    out = net.compress(x)
    decoded = net.decompress(out["strings"], out["shape"])["x_hat"]
    quantised = small_codec.quantise(small_codec.analyse(x), hard_round)
    torch.testing.assert_close(decoded, small_codec.synthesise(quantised.y_hat).clamp(0, 1))


def test_a_wrong_number_of_strings_is_said_in_words(any_codec: Codec) -> None:
    strings = [b"y"] if hasattr(any_codec.net, "h_s") else [b"y", b"z"]
    for decode in (any_codec.decode, any_codec.decode_latents):
        with pytest.raises(ValueError, match="and this codec writes one"):
            decode(strings, 64, 64)
