"""One codec for all rates: its gains, its offsets, its files, and its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compressai.models.vbr import ScaleHyperpriorVbr
from torch import Tensor

import train
from lightning_modules.calibration import calibrated_gains
from lightning_modules.training_module import TrainingModule
from lightning_modules.variable_rate import lmbdas_of, loss_weight
from sga.bitstream import Bitstream, BitstreamError, decode_image, decode_latents
from sga.codecs import Latents, ScaleHyperpriorCodec, VariableRateScaleHyperpriorCodec
from sga.codecs.checkpoint import CheckpointError, load_weights, model_hash
from sga.codecs.export import export_compressai, export_safetensors
from sga.coding import code_image
from sga.images import pad, to_float
from sga.loading import LoadedCodec, load_codec
from sga.photograph import encode_photograph
from sga.rate_distortion import Objective
from sga.reach_target import TargetedRefinement
from sga.refinement.presets import preset
from sga.refinement.refiner import refine
from sga.refinement.rounding import hard_round
from sga.refinement.target import FixedLambda, Target
from tests.conftest import random_codec
from tests.training import ROOT, weights

SIZES = ("--model.codec.init_args.N=8", "--model.codec.init_args.M=12")


def with_offsets(codec: VariableRateScaleHyperpriorCodec) -> VariableRateScaleHyperpriorCodec:
    """Offsets of 0.1 and more, so that their place in the formulas shows."""
    codec.offsets = True
    with torch.no_grad():
        codec.net.QuantABCD[-1].weight.uniform_(-0.05, 0.05)
        codec.net.QuantABCD[-1].bias.fill_(0.1)
    return codec


@pytest.fixture
def codec() -> VariableRateScaleHyperpriorCodec:
    codec = random_codec(VariableRateScaleHyperpriorCodec)
    assert isinstance(codec, VariableRateScaleHyperpriorCodec)
    return with_offsets(codec)


@pytest.fixture
def loaded(codec: VariableRateScaleHyperpriorCodec) -> LoadedCodec:
    return LoadedCodec(codec, 0.013, "mse", model_hash(codec))


def picture(height: int = 64, width: int = 128, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lmbda", [0.0018, 0.01, 0.18])
def test_bits_and_pictures_are_those_of_compressai(codec: VariableRateScaleHyperpriorCodec, lmbda: float) -> None:
    x, gain = picture(), codec.gain_for(lmbda)
    quantised = codec.quantise(codec.analyse(x, gain), hard_round, hard_round)
    assert quantised.y_hat.abs().max() >= 2
    expected = codec.net(x, stage=2, inputscale=gain.view(()))
    bits = codec.bits(quantised)
    torch.testing.assert_close(bits.y.sum(), -expected["likelihoods"]["y"].log2().sum())
    torch.testing.assert_close(bits.z.sum(), -expected["likelihoods"]["z"].log2().sum())
    torch.testing.assert_close(codec.synthesise(codec.dequantise(quantised)), expected["x_hat"])


def test_gains_are_those_of_the_levels_and_between_them_log_linear(codec: VariableRateScaleHyperpriorCodec) -> None:
    levels = torch.tensor(codec.net.lmbda)
    torch.testing.assert_close(codec.gain_for(levels).flatten(), codec.net.Gain, rtol=1e-3, atol=0)
    between = codec.gain_for(float((levels[2] * levels[3]).sqrt()))
    torch.testing.assert_close(between.flatten(), (codec.net.Gain[2] * codec.net.Gain[3]).sqrt()[None], rtol=1e-3, atol=0)
    for beyond, end in ((1e-5, levels[0]), (1.0, levels[-1])):
        assert torch.equal(codec.gain_for(beyond), codec.gain_for(end))
    assert torch.equal(between, between.half().float())  # a file holds that very number
    assert not torch.equal(codec.train().gain_for(0.01), codec.eval().gain_for(0.01))  # rounded only for files


def test_a_random_rounding_decodes_on_average_to_what_its_mean_does(codec: VariableRateScaleHyperpriorCodec) -> None:
    quantised = codec.quantise(codec.analyse(picture(), codec.gain_for(0.05)), hard_round, hard_round)
    y = quantised.y_hat + torch.rand(quantised.y_hat.shape)
    down, up = (codec.dequantise(replace(quantised, y_hat=value)) for value in (y.floor(), y.floor() + 1))
    share = y - y.floor()
    torch.testing.assert_close(codec.dequantise(replace(quantised, y_hat=y)), (1 - share) * down + share * up)


def test_the_table_of_offsets_is_the_network(codec: VariableRateScaleHyperpriorCodec) -> None:
    for parameter in codec.net.QuantABCD.parameters():
        parameter.mul_(2)
    scales = torch.rand(2, 5, 8, 8, generator=torch.Generator().manual_seed(0)).mul(9).sub(4).exp()  # 0.02 ... 150
    gain = torch.tensor([0.3, 2.0]).view(2, 1, 1, 1)
    exact, table = codec.offset(scales, gain), codec.frozen(torch.float32).offset(scales, gain)
    assert (exact.max() - exact.min()) > 0.1
    torch.testing.assert_close(table, exact, atol=1e-3, rtol=1e-3)


def test_an_image_costs_the_same_alone_and_beside_another_of_another_rate(codec: VariableRateScaleHyperpriorCodec) -> None:
    x, lmbda = torch.cat([picture(), picture(seed=2)]), torch.tensor([0.0035, 0.09])
    together = codec.quantise(codec.analyse(x, codec.gain_for(lmbda)), hard_round, hard_round)
    bits, pictures = codec.bits(together).total, codec.synthesise(codec.dequantise(together))
    for i in range(2):
        alone = codec.quantise(codec.analyse(x[i : i + 1], codec.gain_for(lmbda[i])), hard_round, hard_round)
        torch.testing.assert_close(codec.bits(alone).total, bits[i : i + 1])
        torch.testing.assert_close(codec.synthesise(codec.dequantise(alone)), pictures[i : i + 1])
        torch.testing.assert_close(codec.dequantise(together.image(i)), codec.dequantise(alone))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 70), (130, 1)])
@pytest.mark.parametrize("lmbda", [0.001, 0.0123, 0.18])
def test_files_decode_at_any_size_and_gain(loaded: LoadedCodec, height: int, width: int, lmbda: float) -> None:
    original = (picture(height, width)[0] * 255).to(torch.uint8)
    coded, _ = encode_photograph(loaded, original, lmbda)
    stream = Bitstream.from_bytes(coded.file)
    assert stream.gain == float(loaded.codec.gain_for(lmbda))
    latents = loaded.codec.analyse(pad(to_float(original), 64)[None], loaded.codec.gain_for(lmbda))
    quantised = loaded.codec.quantise(latents, hard_round, hard_round)
    expected = loaded.codec.synthesise(loaded.codec.dequantise(quantised))[0, :, :height, :width].clamp(0, 1) * 255
    assert (coded.image.float() - expected).abs().max() < 0.51
    found = decode_latents(loaded, coded.file)
    assert torch.equal(found.y_hat, quantised.y_hat) and found.gain is not None and float(found.gain) == stream.gain


def test_a_file_has_a_gain_where_its_codec_has_one(one_rate: LoadedCodec, loaded: LoadedCodec, photograph: Tensor) -> None:
    image = photograph[:, :64, :64]
    plain, _ = encode_photograph(one_rate, image)
    assert Bitstream.from_bytes(plain.file).gain is None
    stream = Bitstream.from_bytes(plain.file)
    for broken, model in ((replace(stream, gain=1.0), one_rate), (replace(stream, model_hash=loaded.model_hash), loaded)):
        with pytest.raises(BitstreamError, match="has a gain, and the other has none"):
            decode_image(model, broken.to_bytes())


@pytest.mark.parametrize("lmbda", [0.002, 0.006])
def test_refinement_lowers_the_loss_and_its_file_decodes(loaded: LoadedCodec, lmbda: float) -> None:
    x, objective = picture(), Objective(lmbda)
    result = refine(loaded.codec, x, [(64, 128)], FixedLambda(objective), replace(preset("fast"), steps=20, evaluate_every=5), [0])
    assert float(result.refined_loss) < float(result.base_loss)
    assert torch.equal(result.refined.gain, loaded.codec.gain_for(lmbda))  # type: ignore[arg-type]
    original = (x[0] * 255).round().to(torch.uint8)
    coded = code_image(loaded, result.refined, original)
    assert coded.quality.loss(objective) == pytest.approx(float(result.refined_loss), rel=0.1)


@pytest.mark.parametrize("offsets", [False, True])
def test_a_state_dict_of_compressai_loads_and_goes_back(tmp_path: Path, offsets: bool) -> None:
    torch.manual_seed(0)
    net = ScaleHyperpriorVbr(8, 12)
    if not offsets:
        torch.nn.init.zeros_(net.QuantABCD[-1].weight)
        torch.nn.init.zeros_(net.QuantABCD[-1].bias)
    torch.save(net.state_dict(), tmp_path / "vbr.pth.tar")
    loaded = load_codec(tmp_path / "vbr.pth.tar")
    assert isinstance(loaded.codec, VariableRateScaleHyperpriorCodec) and loaded.codec.offsets == offsets
    assert torch.equal(loaded.codec.net.Gain, net.Gain)
    export_compressai(loaded.codec, tmp_path / "again.pth.tar")
    state = torch.load(tmp_path / "again.pth.tar", weights_only=True)["state_dict"]
    again = ScaleHyperpriorVbr.from_state_dict(state).eval()
    x = picture()
    out = again.compress(x, s=5)
    decoded = again.decompress(out["strings"], out["shape"], s=5)["x_hat"]
    quantised = loaded.codec.quantise(loaded.codec.analyse(x, again.Gain[5].detach().view(1, 1, 1, 1)), hard_round, hard_round)
    torch.testing.assert_close(decoded, loaded.codec.synthesise(loaded.codec.dequantise(quantised)).clamp(0, 1), atol=1e-4, rtol=0)
    export_safetensors(loaded.codec, tmp_path / "shipped.safetensors", {"lmbda": "0.013"})
    assert load_codec(tmp_path / "shipped.safetensors").model_hash == model_hash(loaded.codec)


def test_gains_of_z_are_not_supported_and_that_is_said(tmp_path: Path) -> None:
    torch.save(ScaleHyperpriorVbr(8, 12, vr_entbttlnck=True).state_dict(), tmp_path / "vbr.pth.tar")
    with pytest.raises(CheckpointError, match="step of z follows the gain"):
        load_codec(tmp_path / "vbr.pth.tar")


def test_a_warm_start_from_one_rate_pads_the_channels(tmp_path: Path) -> None:
    plain = random_codec(ScaleHyperpriorCodec)
    torch.save(plain.net.state_dict(), tmp_path / "plain.pth")
    codec = VariableRateScaleHyperpriorCodec(N=8, M=20)
    new = load_weights(codec, tmp_path / "plain.pth")
    assert all(name.startswith(("Gain", "QuantABCD")) for name in new)
    assert torch.equal(codec.net.g_a[6].weight[:12], plain.net.g_a[6].weight)
    assert torch.equal(codec.net.h_a[0].weight[:, :12], plain.net.h_a[0].weight)
    assert float(codec.gain_for(0.013)) == 1  # the step of the codec that it comes from
    with pytest.raises(CheckpointError, match="do not fit"):
        load_weights(VariableRateScaleHyperpriorCodec(N=8, M=4), tmp_path / "plain.pth")


def test_calibrated_gains_have_the_least_loss(codec: VariableRateScaleHyperpriorCodec) -> None:
    x = picture()
    gains = calibrated_gains(codec, [x[0]])
    level, lmbda = 4, codec.net.lmbda[4]

    def loss(gain: Tensor) -> float:
        quantised = codec.quantise(codec.analyse(x, gain.view(1, 1, 1, 1)), hard_round, hard_round)
        x_hat = codec.synthesise(codec.dequantise(quantised)).clamp(0, 1)
        return float(Objective(lmbda).loss(codec.bits(quantised).total[0] / x[0, 0].numel(), (x - x_hat).square().mean()))

    assert loss(gains[level]) <= 1.01 * min(loss(gains[level] * factor) for factor in (0.5, 2.0))
    assert (gains[1:] >= gains[:-1]).all()


def test_lambdas_of_crops_are_spread_evenly_and_weighed_alike() -> None:
    lmbda = lmbdas_of(range(1000, 1032), 0.0018, 0.18)
    counts = torch.histc(lmbda.log(), 8, float(torch.tensor(0.0018).log()), float(torch.tensor(0.18).log()))
    assert counts.min() >= 3 and counts.max() <= 5
    assert torch.equal(lmbda[5:], lmbdas_of(range(1005, 1032), 0.0018, 0.18))  # of a crop, by its number alone
    assert float(loss_weight(torch.tensor(0.013))) == 1
    ends = loss_weight(torch.tensor([0.0018, 0.18])) * torch.tensor([0.336, 2.69])  # the published models' losses
    assert ends.max() / ends.min() < 1.05


def arguments(photographs: Path, output: Path, *more: str) -> list[str]:
    configs = ("variable_rate_scale_hyperprior.yaml", "length/half_hour_gpu.yaml")
    return [
        *("fit", *(part for name in configs for part in ("--config", str(ROOT / "configs/train" / name)))),
        *("--data.root", str(photographs), "--data.crop_size=64", "--data.batch_size=2", "--data.steps_per_epoch=2", *SIZES),
        *("--trainer.log_every_n_steps=1", "--model.warmup_steps=2", "--model.compile=false", "--trainer.precision=32-true"),
        *("--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", "--output", str(output), *more),
    ]


def test_a_training_by_the_clock_ends_and_goes_on_where_the_clock_stood(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    train.main(arguments(photographs, output, "--model.minutes=0.02"))
    first = torch.load(output / "last.ckpt", weights_only=True)
    assert first["global_step"] >= 1 and first["lr_schedulers"][0]["elapsed"] >= 1.2
    train.main(arguments(photographs, output, "--model.minutes=0.04"))
    second = torch.load(output / "last.ckpt", weights_only=True)
    assert second["global_step"] > first["global_step"]
    assert second["lr_schedulers"][0]["elapsed"] >= 2.4
    assert second["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-5, rel=1e-3)
    loaded = load_codec(output / "last.ckpt")
    assert isinstance(loaded.codec, VariableRateScaleHyperpriorCodec) and loaded.lmbda == 0.013


def test_a_resumed_training_with_soap_ends_in_the_weights_of_an_uninterrupted_one(photographs: Path, tmp_path: Path) -> None:
    fixed = ("--model.minutes=null", "--trainer.max_steps=6", "--checkpoint_every=3", "--model.codec.init_args.offsets=true")
    train.main(arguments(photographs, tmp_path / "whole", *fixed))
    with pytest.raises(RuntimeError, match="killed"):
        train.main(arguments(photographs, tmp_path / "parts", *fixed, "--trainer.callbacks+=tests.training.Stop"))
    train.main(arguments(photographs, tmp_path / "parts", *fixed))
    expected, found = weights(tmp_path / "whole/last.ckpt"), weights(tmp_path / "parts/last.ckpt")
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_every_part_of_a_codec_of_variable_rate_is_trained_but_its_gains() -> None:
    torch.manual_seed(0)
    module = TrainingModule(VariableRateScaleHyperpriorCodec(8, 12))
    with torch.no_grad():
        module.codec.net.g_a[6].weight.mul_(40)
    module.loss(torch.rand(4, 3, 64, 64), range(4))[0].backward()
    named = module.codec.net.named_parameters()
    without = {name for name, parameter in named if parameter.grad is None or not parameter.grad.any()}
    # The last layer of the offsets begins at 0, and what is before it has no gradient until it has moved.
    assert without == {"Gain", *(f"QuantABCD.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias"))}


def test_ms_ssim_and_several_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="for MSE"):
        TrainingModule(VariableRateScaleHyperpriorCodec(8, 12), lmbda=8.0, distortion="ms_ssim")
    with pytest.raises(ValueError, match=r"model\.minutes"):
        TrainingModule(VariableRateScaleHyperpriorCodec(8, 12), schedule="plateau", minutes=1.0)


def test_latents_without_a_gain_have_the_codecs_own(codec: VariableRateScaleHyperpriorCodec) -> None:
    latents = codec.analyse(picture())
    assert isinstance(latents, Latents) and torch.equal(latents.gain, codec.gain_for(0.013))  # type: ignore[arg-type]
    assert torch.equal(latents.map(torch.clone).gain, latents.gain)  # type: ignore[arg-type]


@pytest.mark.parametrize("lmbda", [0.004, 0.05])
def test_a_target_begins_at_the_gain_that_reaches_it(loaded: LoadedCodec, lmbda: float) -> None:
    x = picture()
    wanted = loaded.codec.quantise(loaded.codec.analyse(x, loaded.codec.gain_for(lmbda)), hard_round, hard_round)
    bpp = float(loaded.codec.bits(wanted).total) / (64 * 128)
    refinement = TargetedRefinement(loaded, Objective(0.013), preset("fast", 4), Target("bpp", bpp))
    objective, base = refinement._start(x, [(64, 128)])
    assert float(loaded.codec.bits(base).total) / (64 * 128) == pytest.approx(bpp, rel=0.1)
    latents = loaded.codec.analyse(x, loaded.codec.gain_for(objective.lmbda))
    moved = loaded.codec.analyse(x, loaded.codec.gain_for(0.1)).at(loaded.codec.gain_for(objective.lmbda))
    torch.testing.assert_close(moved.y, latents.y)
    assert torch.equal(moved.z, latents.z) and torch.equal(moved.gain, latents.gain)
