from __future__ import annotations

import pytest

from sga.codecs import (
    Cheng2020AnchorCodec,
    Cheng2020AttentionCodec,
    Codec,
    ContextModelCodec,
    FactorisedPriorCodec,
    MeanScaleHyperpriorCodec,
    ScaleHyperpriorCodec,
    VariableRateScaleHyperpriorCodec,
)
from sga.published import KODAK, POINTS, of_kodak, published_point, whole_kodak
from sga.rate_distortion import Objective


def test_the_point_of_a_codec_at_a_lambda(small_codec: ScaleHyperpriorCodec) -> None:
    point = published_point(small_codec, Objective(0.013, "mse"))
    assert point is not None and (point.architecture, point.quality) == ("bmshj2018-hyperprior", 4)
    assert (point.bpp, point.psnr_db, point.ms_ssim) == (0.4784, 32.838, 0.9749)
    assert point.rd_loss == pytest.approx(0.4784 + 0.013 * 255**2 * 10**-3.2838)
    point = published_point(small_codec, Objective(16.64, "ms_ssim"))
    assert point is not None and point.rd_loss == pytest.approx(0.3495 + 16.64 * (1 - 0.9806))


def test_kodak_is_known_by_its_names_and_sizes() -> None:
    kodak = {f"kodim{number:02d}": 768 * 512 for number in range(1, 25)}
    assert set(kodak) == KODAK and of_kodak(kodak) and whole_kodak(kodak)
    part = {name: kodak[name] for name in ("kodim02", "kodim24")}
    assert of_kodak(part) and not whole_kodak(part)
    for others in ({}, {"photo": 768 * 512}, {**kodak, "photo": 768 * 512}, dict.fromkeys(kodak, 256**2)):
        assert not of_kodak(others) and not whole_kodak(others)


def test_every_codec_says_its_own_name() -> None:
    names = {adapter: vars(adapter)["published_as"] for adapter in Codec.adapters()}  # not inherited
    assert names == {
        FactorisedPriorCodec: "bmshj2018-factorized",
        ScaleHyperpriorCodec: "bmshj2018-hyperprior",
        MeanScaleHyperpriorCodec: "mbt2018-mean",
        ContextModelCodec: "mbt2018",
        Cheng2020AnchorCodec: "cheng2020-anchor",
        Cheng2020AttentionCodec: "cheng2020-attn",
        VariableRateScaleHyperpriorCodec: "bmshj2018-hyperprior-vbr",
    }


def test_every_codec_has_points(any_codec: Codec) -> None:
    # A model of all rates is held against the eight models that it stands for.
    assert published_point(any_codec, Objective(0.013)) is not None


def test_where_none_was_published_there_is_none(small_codec: ScaleHyperpriorCodec) -> None:
    assert published_point(small_codec, Objective(0.014, "mse")) is None
    assert published_point(small_codec, Objective(0.013, "ms_ssim")) is None
    small_codec.published_as = None
    assert published_point(small_codec, Objective(0.013, "mse")) is None


def test_curves_rise_and_a_better_prior_is_better() -> None:
    curves = {(point.architecture, point.distortion): [] for point in POINTS}  # type: ignore[var-annotated]
    for point in POINTS:
        curves[point.architecture, point.distortion].append(point)
    assert len(curves) == 12
    for (architecture, _), points in curves.items():
        assert [point.quality for point in points] == list(range(1, 7 if architecture.startswith("cheng2020") else 9))
        for name in ("lmbda", "bpp", "psnr_db", "ms_ssim"):
            values = [getattr(point, name) for point in points]
            assert values == sorted(values)
    for factorised, hyperprior, mean_scale in zip(
        *(curves[name, "mse"] for name in ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean")), strict=True
    ):
        assert factorised.rd_loss > hyperprior.rd_loss > mean_scale.rd_loss
    for architecture in ("cheng2020-anchor", "cheng2020-attn"):
        for mean_scale, cheng in zip(curves["mbt2018-mean", "mse"], curves[architecture, "mse"], strict=False):
            assert mean_scale.rd_loss > cheng.rd_loss
