from __future__ import annotations

import pytest

from sga.codecs import ScaleHyperpriorCodec
from sga.published import KODAK, published_point
from sga.quality import Quality
from sga.rate_distortion import Objective
from sga.runs.evaluation import Evaluation, FileResult, print_evaluation

OBJECTIVE = Objective(0.013)


def evaluation(codec: ScaleHyperpriorCodec, names: frozenset[str]) -> Evaluation:
    quality = Quality(0.5, 33.0, 0.98)
    results = [FileResult(name, 512, 768, quality, 0.5, quality.loss(OBJECTIVE)) for name in sorted(names)]
    return Evaluation(results, OBJECTIVE, published_point(codec, OBJECTIVE))


def test_the_gap_is_to_the_published_point(small_codec: ScaleHyperpriorCodec, capsys: pytest.CaptureFixture[str]) -> None:
    on_kodak = evaluation(small_codec, KODAK)
    # Here 0.5 + 0.013 * 255^2 / 10^3.3 = 0.9237, published 0.4784 + 0.013 * 255^2 / 10^3.2838 = 0.9182.
    assert on_kodak.gap_percent() == pytest.approx(100 * (0.92366 / 0.91817 - 1), abs=1e-2)
    assert on_kodak.summary()["published"]["rd_loss"] == pytest.approx(0.91817, abs=1e-5)
    print_evaluation(on_kodak)
    assert "published bmshj2018-hyperprior, lambda 0.013" in capsys.readouterr().out


@pytest.mark.parametrize("names", [KODAK - {"kodim01"}, frozenset({"photo"})])
def test_other_images_have_no_gap(
    names: frozenset[str], small_codec: ScaleHyperpriorCodec, capsys: pytest.CaptureFixture[str]
) -> None:
    other = evaluation(small_codec, names)
    assert other.gap_percent() is None and other.summary()["published"] is None and other.summary()["gap_percent"] is None
    print_evaluation(other)
    printed = capsys.readouterr().out
    assert "not compared with the published point" in printed and "gap" not in printed
