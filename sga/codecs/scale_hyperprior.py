"""The scale hyperprior of Balle et al. 2018 (arXiv 1802.01436), CompressAI's ``bmshj2018-hyperprior``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from compressai.models import ScaleHyperprior
from torch import Tensor, nn

from sga.codecs.adaptation import LOWEST_SCALE, Adaptation
from sga.codecs.base import Codec, Round
from sga.codecs.entropy import (
    channel_indexes,
    compress,
    decompress,
    factorised_bits,
    gaussian_bits,
    medians,
    require_symbols,
    table_borders,
    table_indexes,
)
from sga.codecs.latents import Latents, Prior, Quantised
from sga.codecs.reproducible import UNIT, ambiguous, settle, with_error_bound


class ScaleHyperpriorCodec(Codec):
    """Adapter of CompressAI's ``ScaleHyperprior``; y is rounded about 0, z about the learned medians.

    ::

        y = g_a(x)   z = h_a(|y|)   z_hat = Q(z)   sigma = h_s(z_hat)   y_hat = Q(y)   x_hat = g_s(y_hat)

    Args:
        N: Channels of the transforms and of z.
        M: Channels of y.
    """

    stride = 64
    adaptable = True
    published_as = "bmshj2018-hyperprior"
    net: ScaleHyperprior
    architecture: type[ScaleHyperprior] = ScaleHyperprior
    settles = True
    """Whether :meth:`encode` moves a symbol of z where a scale is too close to a table's border for float64 to tell."""
    predicted = 1
    """Numbers that the hyperprior predicts for each element of y."""

    def __init__(self, N: int = 128, M: int = 192) -> None:
        super().__init__()
        self.net = self.build(N, M)

    @classmethod
    def build(cls, N: int, M: int) -> ScaleHyperprior:
        """An untrained CompressAI model of these sizes."""
        return cls.architecture(N, M)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ScaleHyperpriorCodec | None:
        if not {"g_a.6.weight", "h_a.4.weight", "h_s.4.weight"} <= state.keys():
            return None
        if not state.keys().isdisjoint({"context_prediction.weight", "Gain"}):  # of a context model, or of variable rate
            return None
        M, N = state["g_a.6.weight"].shape[:2]
        # Models with and without means have the same names.
        return cls(N, M) if state["h_s.4.weight"].shape[0] == cls.predicted * M else None

    def latents_of(self, y: Tensor, gain: Tensor | None = None) -> Latents:
        return Latents(y.float(), self.net.h_a(self.hyper_input(y)).float())

    def hyper_input(self, y: Tensor) -> Tensor:
        """What the hyper-analysis sees of ``y``."""
        return torch.abs(y)

    def prior(self, predicted: Tensor) -> Prior:
        """p(y_hat | z_hat) from the output of the hyper-synthesis, ``[B, predicted * M, H/16, W/16]``."""
        return Prior(predicted)

    def context_prior(self, predicted: Tensor, y_hat: Tensor) -> Prior:
        """As :meth:`prior`, for a codec whose prior depends on ``y_hat`` too."""
        return self.prior(predicted)

    def quantise(self, latents: Latents, round_y: Round, round_z: Round) -> Quantised:
        assert latents.z is not None
        z_hat = round_z(latents.z, medians(self.net.entropy_bottleneck, latents.z.dtype))
        prior = self.prior(self.net.h_s(z_hat).float())
        return Quantised(round_y(latents.y, prior.means), z_hat, prior)

    def bits_of_y(self, y_hat: Tensor, prior: Prior | None) -> Tensor:
        assert prior is not None
        # The densities need fp32: differences of two nearly equal probabilities vanish in bf16.
        with torch.autocast(y_hat.device.type, enabled=False):
            return gaussian_bits(self.net.gaussian_conditional, y_hat.float(), prior)

    def bits_of_z(self, z_hat: Tensor) -> Tensor:
        with torch.autocast(z_hat.device.type, enabled=False):
            return factorised_bits(self.net.entropy_bottleneck, z_hat.float())

    def synthesise(self, y_hat: Tensor) -> Tensor:
        return cast(Tensor, self.net.g_s(y_hat)).float()

    @torch.no_grad()
    def encode(self, quantised: Quantised) -> list[bytes]:
        assert quantised.z_hat is not None
        offsets = medians(self.net.entropy_bottleneck, torch.float64).cpu()
        adaptation = quantised.adaptations[0] if quantised.adaptations else None
        gain = None if quantised.gain is None else float(quantised.gain)
        symbols_z = torch.round(quantised.z_hat.double().cpu() - offsets)
        require_symbols(symbols_z)
        if self.settles:
            found = partial(self._ambiguous, offsets=offsets, gain=gain, adaptation=adaptation)
            symbols_z = settle(symbols_z, found, self.stride // self.y_stride)
        return [
            self.encode_y(quantised.y_hat.double().cpu(), self._predict(symbols_z + offsets, gain), adaptation),
            compress(self.net.entropy_bottleneck, symbols_z, channel_indexes(symbols_z)),
            *([] if adaptation is None else [adaptation.to_bytes()]),
        ]

    @torch.no_grad()
    def decode(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Tensor:
        if len(strings) < 2:
            raise ValueError("it holds one string, and this codec writes one of y and one of z")
        string_y, string_z, *rest = strings
        predicted = self._predict(self._decode_z(string_z, height, width), gain)
        adaptation = self._read_adaptation(rest, predicted)
        return self.decode_y(string_y, predicted, adaptation).float().to(self.device)

    def encode_y(self, y_hat: Tensor, predicted: Tensor, adaptation: Adaptation | None) -> bytes:
        """The string of ``y_hat`` ``[1, M, H/16, W/16]``, given what the hyper-synthesis predicts; float64 on the CPU."""
        indexes, means = self._coding_prior(predicted, adaptation)
        symbols = torch.round(y_hat - means)
        if adaptation is not None:
            symbols = symbols - adaptation.predict(symbols).round()
        return compress(self.net.gaussian_conditional, symbols, indexes)

    def decode_y(self, string: bytes, predicted: Tensor, adaptation: Adaptation | None) -> Tensor:
        """``y_hat`` of a string of :meth:`encode_y`, float64 on the CPU."""
        indexes, means = self._coding_prior(predicted, adaptation)
        symbols = decompress(self.net.gaussian_conditional, string, indexes)
        return (symbols if adaptation is None else adaptation.restore(symbols)) + means

    @torch.no_grad()
    def decode_latents(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Quantised:
        y_hat = self.decode(strings, height, width, gain)
        z_hat = self._decode_z(strings[1], height, width).float().to(self.device)
        predicted = self.net.h_s(z_hat).float()
        return Quantised(y_hat, z_hat, self.context_prior(predicted, y_hat), (self._read_adaptation(strings[2:], predicted),))

    def _read_adaptation(self, strings: Sequence[bytes], predicted: Tensor) -> Adaptation | None:
        """That of a file, from what is behind the strings of y and z.

        Raises:
            ValueError: It is not of this codec.
        """
        if not strings:
            return None
        if len(strings) > 1 or not self.adaptable:
            raise ValueError("more strings than this codec writes")
        return Adaptation.from_bytes(strings[0], predicted.shape[1] // self.predicted)

    def _decode_z(self, string: bytes, height: int, width: int) -> Tensor:
        """``z_hat`` ``[1, N, H/64, W/64]`` in float64 on the CPU."""
        offsets = medians(self.net.entropy_bottleneck, torch.float64).cpu()
        shape = (1, offsets.shape[1], height // self.stride, width // self.stride)
        return decompress(self.net.entropy_bottleneck, string, channel_indexes(torch.empty(shape))) + offsets

    @property
    def quantiles(self) -> list[nn.Parameter]:
        return [self.net.entropy_bottleneck.quantiles]

    def _predict(self, z_hat: Tensor, gain: float | None = None) -> Tensor:
        """The output of the hyper-synthesis for ``z_hat``, times the gain where there is one, in float64 on the CPU.

        In fp32 two machines would disagree on the tables of some photographs; in float64, :meth:`encode` sees to it.
        """
        predicted = cast(Tensor, self._hyper_synthesis()(z_hat))
        return predicted if gain is None else predicted * gain

    def _hyper_synthesis(self) -> nn.Module:
        """h_s in float64 on the CPU."""
        return copy.deepcopy(self.net.h_s).double().cpu()

    def _ambiguous(self, symbols_z: Tensor, offsets: Tensor, gain: float | None, adaptation: Adaptation | None) -> Tensor:
        """Which scales of y, ``[1, M, H/16, W/16]``, another machine may find at the other side of a table's border."""
        predicted, bound = with_error_bound(self._hyper_synthesis(), symbols_z + offsets)
        if gain is not None:
            predicted, bound = predicted * gain, bound * gain
        scales, bound = self.prior(predicted).scales, self.prior(bound).scales
        if adaptation is not None:
            # The factor is the same for both but for the last digits of exp; the lowest scale is exact.
            bound = bound * (adaptation.scales(scales) / scales.clamp(min=LOWEST_SCALE))
            scales = adaptation.scales(scales)
        borders = table_borders(self.net.gaussian_conditional, nearest=adaptation is not None)
        return ambiguous(scales, bound + 8 * UNIT * scales.abs(), borders)

    def _coding_prior(self, predicted: Tensor, adaptation: Adaptation | None) -> tuple[Tensor, Tensor]:
        """For y: int32 indexes of the coder's tables ``[1, M, H/16, W/16]``, and the means about which its symbols are counted."""
        prior = self.prior(predicted)
        scales = prior.scales if adaptation is None else adaptation.scales(prior.scales)
        indexes = table_indexes(self.net.gaussian_conditional, scales.contiguous(), nearest=adaptation is not None)
        return indexes, torch.zeros(()).double() if prior.means is None else prior.means
