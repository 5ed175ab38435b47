from __future__ import annotations

import torch

from sga.codecs import ScaleHyperpriorCodec
from sga.refinement.rounding import hard_round
from tests.conftest import random_image


def test_hyper_latents_are_rounded_about_their_medians(small_codec: ScaleHyperpriorCodec) -> None:
    quantised = small_codec.quantise(small_codec.analyse(random_image()), hard_round, hard_round)
    medians = small_codec.net.entropy_bottleneck.quantiles[:, 0, 1].view(1, -1, 1, 1)
    assert quantised.z_hat is not None and medians.abs().max() > 0.1
    symbols = quantised.z_hat - medians
    torch.testing.assert_close(symbols, symbols.round(), atol=1e-5, rtol=0)
