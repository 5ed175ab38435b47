"""The factorised prior, first baseline of Balle et al. 2018 (arXiv 1802.01436), CompressAI's ``bmshj2018-factorized``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from compressai.models import FactorizedPrior
from torch import Tensor, nn

from sga.codecs.base import Codec, Round
from sga.codecs.entropy import channel_indexes, compress, decompress, factorised_bits, medians
from sga.codecs.latents import Latents, Prior, Quantised


class FactorisedPriorCodec(Codec):
    """Adapter of CompressAI's ``FactorizedPrior``: one learned density per channel of y, rounded about its median; no z.

    ::

        y = g_a(x)   y_hat = Q(y)   x_hat = g_s(y_hat)

    Args:
        N: Channels of the transforms.
        M: Channels of y.
    """

    stride = 16
    published_as = "bmshj2018-factorized"
    net: FactorizedPrior
    synthesis_transforms = ("g_s",)

    def __init__(self, N: int = 128, M: int = 192) -> None:
        super().__init__()
        self.net = FactorizedPrior(N, M)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> FactorisedPriorCodec | None:
        # The variant with ReLU in place of GDN lacks the latter's weights.
        if not {"g_a.6.weight", "g_a.1.beta", "entropy_bottleneck.quantiles"} <= state.keys() or "h_a.0.weight" in state:
            return None
        M, N = state["g_a.6.weight"].shape[:2]
        return cls(N, M)

    def latents_of(self, y: Tensor, gain: Tensor | None = None) -> Latents:
        return Latents(y.float(), None)

    def quantise(self, latents: Latents, round_y: Round, round_z: Round) -> Quantised:
        return Quantised(round_y(latents.y, medians(self.net.entropy_bottleneck, latents.y.dtype)), None, None)

    def bits_of_y(self, y_hat: Tensor, prior: Prior | None) -> Tensor:
        # The density needs fp32: differences of two nearly equal probabilities vanish in bf16.
        with torch.autocast(y_hat.device.type, enabled=False):
            return factorised_bits(self.net.entropy_bottleneck, y_hat.float())

    def synthesise(self, y_hat: Tensor) -> Tensor:
        return cast(Tensor, self.net.g_s(y_hat)).float()

    @torch.no_grad()
    def encode(self, quantised: Quantised) -> list[bytes]:
        symbols = torch.round((quantised.y_hat - medians(self.net.entropy_bottleneck, torch.float64)).cpu())
        return [compress(self.net.entropy_bottleneck, symbols, channel_indexes(symbols))]

    @torch.no_grad()
    def decode(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Tensor:
        if len(strings) != 1:
            raise ValueError(f"it holds {len(strings)} strings, and this codec writes one")
        (string,) = strings
        offsets = medians(self.net.entropy_bottleneck, torch.float64).cpu()
        shape = (1, offsets.shape[1], height // self.stride, width // self.stride)
        symbols = decompress(self.net.entropy_bottleneck, string, channel_indexes(torch.empty(shape)))
        return (symbols + offsets).float().to(self.device)

    @property
    def quantiles(self) -> list[nn.Parameter]:
        return [self.net.entropy_bottleneck.quantiles]
