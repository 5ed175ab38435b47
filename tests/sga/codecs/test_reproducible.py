from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sga.codecs import Codec, MeanScaleHyperpriorCodec, Quantised, ScaleHyperpriorCodec, VariableRateScaleHyperpriorCodec
from sga.codecs.adaptation import Adaptation
from sga.codecs.entropy import medians, table_borders
from sga.codecs.reproducible import UNIT, ambiguous, settle, with_error_bound
from sga.refinement.rounding import hard_round
from tests.conftest import random_codec, random_image

CODECS = [ScaleHyperpriorCodec, MeanScaleHyperpriorCodec, VariableRateScaleHyperpriorCodec]
UNIT_OF_FP32 = 2.0**-24


def hard(codec: Codec, adapted: bool) -> Quantised:
    """Latents of noise, whose scales are made to differ from each other."""
    with torch.no_grad():
        codec.net.h_s[-2 if codec.net.h_s[-1].__class__ is nn.ReLU else -1].weight *= 30
        quantised = codec.quantise(codec.analyse(random_image(128, 192)), hard_round, hard_round)
    gains = tuple(range(-6, 6))
    adaptations = (Adaptation(gains, (), ()),) if adapted else ()
    return Quantised(quantised.y_hat, quantised.z_hat, quantised.prior, adaptations, quantised.gain)


@pytest.mark.parametrize("adapter", [*CODECS, *(adapter for adapter in Codec.adapters() if "Cheng" in adapter.__name__)])
def test_the_bound_holds_with_another_precision_and_order(adapter: type[Codec]) -> None:
    """The bound is proportional to the unit of rounding, so that fp32, whose errors can be seen, tests it."""
    transform = random_codec(adapter).net.h_s
    z = torch.randint(-20, 20, (1, 8, 4, 6)).float()
    with torch.no_grad():
        values, bound = with_error_bound(transform.double(), z.double())
        errors = (transform.float()(z).double() - values).abs()
        assert (errors <= bound * UNIT_OF_FP32 / UNIT).all()
        assert 0 < bound.max() < 1e-9 * values.abs().max()  # and it is small enough to be of use


def test_a_layer_without_a_known_bound_is_refused() -> None:
    with pytest.raises(TypeError, match="Sigmoid"):
        with_error_bound(nn.Sequential(nn.Sigmoid()), torch.zeros(1))


def test_a_value_is_ambiguous_where_a_border_is_within_its_bound() -> None:
    borders = torch.tensor([1.0, 2.0], dtype=torch.float64)
    values = torch.tensor([0.5, 1 - 1e-9, 1 - 1e-12, 1.0, 1 + 1e-12, 1.5, 2 + 1e-12, 3.0], dtype=torch.float64)
    found = ambiguous(values, torch.full_like(values, 1e-11), borders)
    assert found.tolist() == [False, False, True, True, True, False, True, False]


def test_settling_moves_one_symbol_and_says_where_it_cannot() -> None:
    symbols = torch.zeros(1, 3, 2, 2)

    def unsettled(found: Tensor) -> Tensor:
        out = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        out[0, 0, 5, 2] = found[0, 1, 1, 0] != -1
        return out

    moved = settle(symbols, unsettled, 4)
    assert moved[0, 1, 1, 0] == -1 and moved.abs().sum() == 1
    assert settle(moved, unsettled, 4) is moved
    with pytest.raises(ValueError, match="no move of z settles it"):
        settle(symbols, lambda found: torch.ones(1, 1, 8, 8, dtype=torch.bool), 4)


def put_a_border_on_a_scale(codec: ScaleHyperpriorCodec, quantised: Quantised) -> None:
    """Makes one predicted scale of this image equal to a border of the codec's tables."""
    assert quantised.z_hat is not None
    adapted, gain = any(quantised.adaptations), None if quantised.gain is None else float(quantised.gain)
    offsets = medians(codec.net.entropy_bottleneck, torch.float64)
    of_model = scales = codec.prior(codec._predict(torch.round(quantised.z_hat.double() - offsets) + offsets, gain)).scales
    if adapted:
        assert quantised.adaptations[0] is not None
        scales = quantised.adaptations[0].scales(scales)
    table = codec.net.gaussian_conditional.scale_table = codec.net.gaussian_conditional.scale_table.double()
    borders = table_borders(codec.net.gaussian_conditional, adapted)
    inside = (of_model > 0.3) & (quantised.y_hat.abs() <= 1)  # where neighbouring tables differ
    values, counts = scales[inside].unique(return_counts=True)
    values = values[counts == 1]
    value = values[(borders[torch.bucketize(values, borders)] / values).argmin()]  # so that the border moves least
    place = int(torch.bucketize(value, borders))
    table[place] = value**2 / table[place + 1] if adapted else value
    assert (table[1:] > table[:-1]).all()


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("adapter", CODECS)
def test_files_decode_though_every_scale_is_off_by_its_bound(
    adapter: type[Codec], adapted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = random_codec(adapter)
    assert isinstance(codec, ScaleHyperpriorCodec)
    quantised = hard(codec, adapted)
    gain = None if quantised.gain is None else float(quantised.gain)
    put_a_border_on_a_scale(codec, quantised)

    def decoded(strings: list[bytes], sign: int) -> Tensor | None:
        def off(z_hat: Tensor, gain: float | None = None) -> Tensor:
            values, bound = with_error_bound(codec._hyper_synthesis(), z_hat)
            return (values + sign * bound) * (1 if gain is None else gain)

        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(codec, "_predict", off)
            try:
                return ScaleHyperpriorCodec.decode(codec, strings, 128, 192, gain)
            except ValueError:
                return None

    strings = codec.encode(quantised)
    found = [decoded(strings, sign) for sign in (-1, 0, 1)]
    assert all(one is not None and torch.allclose(one, found[1], atol=1e-5) for one in found)  # type: ignore[arg-type]
    monkeypatch.setattr(type(codec), "settles", False)  # the control
    strings = codec.encode(quantised)
    found = [decoded(strings, sign) for sign in (-1, 1)]
    assert any(one is None or not torch.allclose(one, quantised.y_hat, atol=1e-5) for one in found)


def test_the_scales_of_a_photograph_are_far_from_borders(embedded: object, photograph: Tensor) -> None:
    from sga.images import pad, to_float
    from sga.loading import LoadedCodec

    assert isinstance(embedded, LoadedCodec) and isinstance(embedded.codec, ScaleHyperpriorCodec)
    codec = embedded.codec
    with torch.no_grad():
        latents = codec.analyse(pad(to_float(photograph), 64)[None])
        offsets = medians(codec.net.entropy_bottleneck, torch.float64)
        assert latents.z is not None
        symbols = torch.round(latents.z.double() - offsets)
        found = partial(codec._ambiguous, offsets=offsets, gain=None, adaptation=None)
        assert settle(symbols, found, 4) is symbols
