"""The scale hyperprior of one model for all rates (Kamisli, Racape, Choi 2024, arXiv 2402.18930), CompressAI's
``bmshj2018-hyperprior-vbr``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from compressai.models.base import get_scale_table
from compressai.models.vbr import ScaleHyperpriorVbr
from torch import Tensor

from sga.codecs.adaptation import LOWEST_SCALE
from sga.codecs.base import Round
from sga.codecs.entropy import medians
from sga.codecs.latents import Latents, Quantised
from sga.codecs.scale_hyperprior import ScaleHyperpriorCodec

REFERENCE_LMBDA = 0.013
"""The lambda whose gain an untrained model has at 1, and the one of latents that nobody asked a lambda for."""

HIGHEST_SCALE = 256.0
"""The largest scale of the coder's tables; the offsets' input ends there."""

TABLE = 257
"""Scales, on a log grid, whose offsets stand for the others in a refinement."""


class VariableRateScaleHyperpriorCodec(ScaleHyperpriorCodec):
    """Adapter of CompressAI's ``ScaleHyperpriorVbr``; y is multiplied by a gain, the inverse of the quantiser's step, and rounded.

    ::

        y = gain * g_a(x)    z = h_a(|y / gain|)    z_hat = Q(z)    sigma = gain * h_s(z_hat)    y_hat = Q(y)
        x_hat = g_s((y_hat - offset(sigma, gain) * sign(y_hat) * min(|y_hat|, 1)) / gain)

    The offset moves what a non-zero symbol decodes to towards 0; between 0 and 1 it grows with the symbol, so that a y that is
    rounded at random decodes, on average, to what its mean does. Each image has a gain of its own, in :attr:`Latents.gain`; a
    file holds it in half precision, and so is every gain that is not for training.

    Args:
        N: Channels of the transforms and of z.
        M: Channels of y.
        offsets: Whether offsets are used; without, they are 0 and are not trained.
    """

    published_as = "bmshj2018-hyperprior-vbr"
    variable_rate = True
    net: ScaleHyperpriorVbr
    architecture = ScaleHyperpriorVbr

    def __init__(self, N: int = 128, M: int = 320, offsets: bool = True) -> None:
        super().__init__(N, M)
        self.offsets, self.tabulated = offsets, False
        with torch.no_grad():
            # A step that falls with the square root of lambda keeps lambda * step^2, its share of the loss, the same. As in
            # CompressAI the gains are not trained; see calibration.py.
            self.net.Gain.copy_((torch.tensor(self.net.lmbda) / REFERENCE_LMBDA).sqrt()).requires_grad_(False)
            for parameter in self.net.QuantABCD[-1].parameters():
                parameter.zero_()
        if not offsets:
            self.net.QuantABCD.requires_grad_(False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> VariableRateScaleHyperpriorCodec | None:
        needed = {"g_a.6.weight", "h_a.4.weight", "h_s.4.weight", "Gain", "QuantABCD.4.weight"}
        if not needed <= state.keys() or "context_prediction.weight" in state:
            return None
        if "gayn2zqstep.0.weight" in state:
            raise ValueError(
                "a model of variable rate whose step of z follows the gain too, as CompressAI's zoo has them, is not supported: "
                "its coding tables would depend on the gain"
            )
        M, N = state["g_a.6.weight"].shape[:2]
        if state["h_s.4.weight"].shape[0] != M:
            return None
        last = state["QuantABCD.4.weight"], state["QuantABCD.4.bias"]
        return cls(N, M, offsets=any(bool(value.any()) for value in last))

    @property
    def lmbdas(self) -> tuple[float, float]:
        return self.net.lmbda[0], self.net.lmbda[-1]

    def gain_for(self, lmbda: float | Tensor) -> Tensor:
        """See the base class; log(gain) is linear in log(lambda) between CompressAI's eight levels, and constant beyond them."""
        device = self.device
        levels = torch.tensor(self.net.lmbda, device=device).log()
        value = torch.as_tensor(lmbda, dtype=torch.float32, device=device).reshape(-1).log().clamp(levels[0], levels[-1])
        above = torch.bucketize(value, levels[1:-1]) + 1
        share = (value - levels[above - 1]) / (levels[above] - levels[above - 1])
        gains = self.net.Gain.abs().log()
        gain = torch.lerp(gains[above - 1], gains[above], share).exp().view(-1, 1, 1, 1)
        return gain if self.training else gain.detach().half().float()

    def analyse(self, x: Tensor, gain: Tensor | None = None) -> Latents:
        if gain is None:
            gain = self.gain_for(REFERENCE_LMBDA)
        gain = gain.expand(len(x), 1, 1, 1)
        y = self.net.g_a(x).float()
        return Latents(y * gain, self.net.h_a(y.abs()).float(), gain)

    def latents_of(self, y: Tensor, gain: Tensor | None = None) -> Latents:
        assert gain is not None
        return Latents(y.float(), self.net.h_a((y / gain).abs()).float(), gain)

    def quantise(self, latents: Latents, round_y: Round, round_z: Round) -> Quantised:
        assert latents.z is not None and latents.gain is not None
        z_hat = round_z(latents.z, medians(self.net.entropy_bottleneck, latents.z.dtype))
        prior = self.prior(self.net.h_s(z_hat).float() * latents.gain)
        return Quantised(round_y(latents.y, prior.means), z_hat, prior, gain=latents.gain)

    def dequantise(self, quantised: Quantised) -> Tensor:
        y_hat, gain = quantised.y_hat, quantised.gain
        assert gain is not None and quantised.prior is not None
        if self.offsets:
            towards_0 = self.offset(quantised.prior.scales, gain) * y_hat.abs().clamp(max=1)
            y_hat = y_hat - towards_0 * y_hat.sign()
        return y_hat / gain

    def offset(self, scales: Tensor, gain: Tensor) -> Tensor:
        """By how much non-zero symbols decode to less than their size, in steps: of the shape of ``scales``."""
        with torch.autocast(scales.device.type, enabled=False):
            scales = scales.clamp(min=LOWEST_SCALE)
            if not self.tabulated:
                return self.net.QuantABCD(torch.stack([scales, gain.expand_as(scales)], -1))[..., 0]
            # At 768 x 512 the network takes longer than a tenth of a refinement's step, and a table of it a hundredth.
            points = torch.linspace(math.log(LOWEST_SCALE), math.log(HIGHEST_SCALE), TABLE, device=scales.device)
            inputs = torch.stack([points.exp().expand(len(gain), -1), gain.view(-1, 1).expand(-1, TABLE)], -1)
            table = self.net.QuantABCD(inputs)[..., 0]  # [B, TABLE]
            place = (scales.detach().log() - points[0]).div_(points[1] - points[0]).clamp_(0, TABLE - 1).flatten(1)
            below = place.nan_to_num(0.0).long().clamp_(max=TABLE - 2)  # a diverged image must not fail its batch
            return torch.lerp(table.gather(1, below), table.gather(1, below + 1), place - below).view_as(scales)

    def frozen(self, dtype: torch.dtype) -> Self:
        fast = super().frozen(dtype)
        fast.tabulated = True
        return fast

    @torch.no_grad()
    def decode(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Tensor:
        return self.dequantise(self.decode_latents(strings, height, width, gain))

    @torch.no_grad()
    def decode_latents(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Quantised:
        y_hat = super().decode(strings, height, width, gain)
        if gain is None:
            raise ValueError("it has no gain")
        z_hat = self._decode_z(strings[1], height, width).float().to(self.device)
        predicted = self.net.h_s(z_hat).float() * gain
        adaptations = (self._read_adaptation(strings[2:], predicted),)
        return Quantised(y_hat, z_hat, self.prior(predicted), adaptations, torch.full((1, 1, 1, 1), gain, device=self.device))

    @torch.no_grad()
    def make_tables(self) -> None:
        # CompressAI's own update() leaves the quantiles as training has them.
        self.net.gaussian_conditional.update_scale_table(get_scale_table(), force=True)
        self.net.entropy_bottleneck.update(force=True, update_quantiles=True)

    def shared_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a scale hyperprior with the same N and at most as many channels of y: all of it; new channels stay as they are."""
        own, shared = dict(self.net.named_parameters()), dict(state)
        for name, value in state.items():
            shape = own[name].shape if name in own else value.shape
            if len(shape) == value.ndim and all(side >= known for side, known in zip(shape, value.shape, strict=True)):
                padded = own[name].detach().clone() if name in own else value.clone()
                padded[tuple(slice(side) for side in value.shape)] = value
                shared[name] = padded
        return shared
