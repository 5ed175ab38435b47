"""The scale hyperprior of Balle et al. 2018 (arXiv 1802.01436), CompressAI's ``bmshj2018-hyperprior``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from compressai.models import ScaleHyperprior
from torch import Tensor, nn

from lightning_modules.codecs.base import Bits, Codec, Latents, Prior, Quantise, Quantised
from lightning_modules.codecs.entropy import (
    channel_indexes,
    compress,
    decompress,
    factorised_bits,
    gaussian_bits,
    medians,
    table_indexes,
)


class ScaleHyperpriorCodec(Codec):
    """Adapter of CompressAI's ``ScaleHyperprior``; y is rounded about 0, z about the learned medians.

    ::

        y = g_a(x)   z = h_a(|y|)   z_hat = Q(z)   sigma = h_s(z_hat)   y_hat = Q(y)   x_hat = g_s(y_hat)

    Args:
        N: Channels of the transforms and of z.
        M: Channels of y.
    """

    stride = 64
    net: ScaleHyperprior
    architecture: type[ScaleHyperprior] = ScaleHyperprior
    predicted = 1
    """Numbers that the hyperprior predicts for each element of y."""

    def __init__(self, N: int = 128, M: int = 192) -> None:
        super().__init__()
        self.net = self.architecture(N, M)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ScaleHyperpriorCodec | None:
        if not {"g_a.6.weight", "h_a.4.weight", "h_s.4.weight"} <= state.keys() or "context_prediction.weight" in state:
            return None
        M, N = state["g_a.6.weight"].shape[:2]
        # Models with and without means have the same names.
        return cls(N, M) if state["h_s.4.weight"].shape[0] == cls.predicted * M else None

    def analyse(self, x: Tensor) -> Latents:
        y = self.net.g_a(x)
        z = self.net.h_a(self.hyper_input(y))
        return Latents(y.float(), z.float())

    def hyper_input(self, y: Tensor) -> Tensor:
        """What the hyper-analysis sees of ``y``."""
        return torch.abs(y)

    def prior(self, predicted: Tensor) -> Prior:
        """p(y_hat | z_hat) from the output of the hyper-synthesis, ``[B, predicted * M, H/16, W/16]``."""
        return Prior(predicted)

    def context_prior(self, predicted: Tensor, y_hat: Tensor) -> Prior:
        """The same, given the whole of ``y_hat`` as well, for codecs with a context model."""
        return self.prior(predicted)

    def quantise(self, latents: Latents, quantise: Quantise) -> Quantised:
        assert latents.z is not None
        z_hat = quantise(latents.z, medians(self.net.entropy_bottleneck, latents.z.dtype))
        prior = self.prior(self.net.h_s(z_hat).float())
        return Quantised(quantise(latents.y, prior.means), z_hat, prior)

    def bits(self, quantised: Quantised) -> Bits:
        assert quantised.z_hat is not None and quantised.prior is not None
        # The densities need fp32: differences of two nearly equal probabilities vanish in bf16.
        with torch.autocast(quantised.y_hat.device.type, enabled=False):
            return Bits(
                y=gaussian_bits(self.net.gaussian_conditional, quantised.y_hat.float(), quantised.prior),
                z=factorised_bits(self.net.entropy_bottleneck, quantised.z_hat.float()),
            )

    def synthesise(self, y_hat: Tensor) -> Tensor:
        return cast(Tensor, self.net.g_s(y_hat)).float()

    @torch.no_grad()
    def encode(self, quantised: Quantised) -> list[bytes]:
        assert quantised.z_hat is not None
        offsets = medians(self.net.entropy_bottleneck, torch.float64).cpu()
        symbols_z = torch.round(quantised.z_hat.double().cpu() - offsets)
        indexes_y, means = self._coding_prior(symbols_z + offsets)
        symbols_y = torch.round(quantised.y_hat.double().cpu() - means)
        return [
            compress(self.net.gaussian_conditional, symbols_y, indexes_y),
            compress(self.net.entropy_bottleneck, symbols_z, channel_indexes(symbols_z)),
        ]

    @torch.no_grad()
    def decode(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        string_y, string_z = strings
        indexes_y, means = self._coding_prior(self._decode_z(string_z, height, width))
        symbols_y = decompress(self.net.gaussian_conditional, string_y, indexes_y)
        return (symbols_y + means).float().to(self.device)

    @torch.no_grad()
    def decode_latents(self, strings: Sequence[bytes], height: int, width: int) -> Quantised:
        z_hat = self._decode_z(strings[1], height, width).float().to(self.device)
        y_hat = self.decode(strings, height, width)
        return Quantised(y_hat, z_hat, self.context_prior(self.net.h_s(z_hat).float(), y_hat))

    def _decode_z(self, string: bytes, height: int, width: int) -> Tensor:
        """``z_hat`` ``[1, N, H/64, W/64]`` in float64 on the CPU."""
        offsets = medians(self.net.entropy_bottleneck, torch.float64).cpu()
        shape = (1, offsets.shape[1], height // self.stride, width // self.stride)
        return decompress(self.net.entropy_bottleneck, string, channel_indexes(torch.empty(shape))) + offsets

    @property
    def quantiles(self) -> list[nn.Parameter]:
        return [self.net.entropy_bottleneck.quantiles]

    def _coding_prior(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """For y, from ``z_hat`` in float64 on the CPU: int32 indexes of the coder's tables ``[1, M, H/16, W/16]``, and the
        means about which its symbols are counted.

        In float64 two machines differ by some 1e-15, and a scale that close to a border between two tables does not occur
        in practice; in fp32 two machines would disagree on some photographs.
        """
        weights = {name: value.detach().double().cpu() for name, value in self.net.h_s.named_parameters()}
        prior = self.prior(torch.func.functional_call(self.net.h_s, weights, z_hat))
        indexes = table_indexes(self.net.gaussian_conditional, prior.scales.contiguous())
        return indexes, torch.zeros(()).double() if prior.means is None else prior.means
