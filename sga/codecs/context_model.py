"""The joint autoregressive and hierarchical prior of Minnen et al. 2018 (arXiv 1809.02736), CompressAI's ``mbt2018``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from compressai.layers import MaskedConv2d
from compressai.models import JointAutoregressiveHierarchicalPriors
from torch import Tensor, nn

from sga.codecs.adaptation import Adaptation
from sga.codecs.base import Round
from sga.codecs.entropy import StreamDecoder, compress, medians, table_indexes
from sga.codecs.latents import Latents, Prior, Quantised
from sga.codecs.mean_scale_hyperprior import MeanScaleHyperpriorCodec

KERNEL = 5
REACH = KERNEL // 2
"""Rows above and columns to either side that the context of a position has."""
TAPS = REACH * KERNEL + REACH
"""Positions of the context, the first so many of the kernel in raster order."""

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``choose(positions, scales, means)``: y_hat at ``positions`` ``[n]``; it and the other two are ``[B, n, M]``."""


class ContextModelCodec(MeanScaleHyperpriorCodec):
    """Adapter of CompressAI's ``JointAutoregressiveHierarchicalPriors``: the prior of a position sees those decoded before it.

    ::

        y = g_a(x)   z = h_a(y)   z_hat = Q(z)   x_hat = g_s(y_hat)
        sigma_i, mu_i = e(h_s(z_hat)_i, c(y_hat_<i))   y_hat_i = Q(y_i - mu_i) + mu_i

    The context c is a masked 5 x 5 convolution, e three 1 x 1 ones. Given the whole y_hat, the prior is one parallel pass; that is
    all that training takes, in which y_hat is y with noise. (CompressAI draws the noise of c and of the density apart; here it is
    one, as in the product of conditionals of one y_hat.)

    Hard rounding is a recursion, since mu_i depends on what the positions before i were rounded to. In evaluation mode it is
    followed exactly, over fronts of positions that do not depend on each other, and y is rounded by any method about the means
    that it ends in: hard rounding then gives what the coder writes, and a relaxed one tends to it. The gradient reaches z
    through these means as in the mean-scale hyperprior, and takes their context as it is.

    Args:
        N: Channels of the transforms and of z.
        M: Channels of y.
    """

    published_as = "mbt2018"
    net: JointAutoregressiveHierarchicalPriors
    architecture = JointAutoregressiveHierarchicalPriors
    adaptable = False
    settles = False  # a bound through the recursion of the means would be too wide to settle anything

    def __init__(self, N: int = 192, M: int = 192) -> None:
        super().__init__(N, M)
        # The weights behind the mask are never used, but they would count in the model's hash.
        _mask(self.net.context_prediction)
        self.net.context_prediction.register_load_state_dict_post_hook(_mask)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ContextModelCodec | None:
        if not {"g_a.6.weight", "g_s.6.weight", "context_prediction.weight"} <= state.keys():
            return None
        M, N = state["g_a.6.weight"].shape[:2]
        return cls(N, M)

    def quantise(self, latents: Latents, round_y: Round, round_z: Round) -> Quantised:
        assert latents.z is not None
        z_hat = round_z(latents.z, medians(self.net.entropy_bottleneck, latents.z.dtype))
        predicted = self.net.h_s(z_hat).float()
        if self.training:
            y_hat = round_y(latents.y, None)
            return Quantised(y_hat, z_hat, self.context_prior(predicted, y_hat))
        with torch.autocast(predicted.device.type, enabled=False):
            y_hat, means = self._round_serially(latents.y, predicted)
            if predicted.requires_grad:
                through = self.context_prior(predicted, y_hat).means
                assert through is not None
                means = means + (through - through.detach())
            y_hat = round_y(latents.y, means)
            return Quantised(y_hat, z_hat, self.context_prior(predicted, y_hat))

    def context_prior(self, predicted: Tensor, y_hat: Tensor) -> Prior:
        """p(y_hat | z_hat), every position given those before it, from the output of the hyper-synthesis
        ``[B, 2M, H/16, W/16]`` and the whole of y_hat."""
        context = self.net.context_prediction
        weight = (context.weight * context.mask)[:, :, : REACH + 1]  # the rows below are masked
        seen = F.conv2d(F.pad(y_hat, (REACH, REACH, REACH, 0)), weight, context.bias)
        return self.prior(self.net.entropy_parameters(torch.cat([predicted, seen], 1)).float())

    def encode_y(self, y_hat: Tensor, predicted: Tensor, adaptation: Adaptation | None) -> bytes:
        values = _rows(y_hat)
        symbols, indexes = torch.empty_like(values), torch.empty_like(values, dtype=torch.int32)

        def choose(positions: Tensor, scales: Tensor, means: Tensor) -> Tensor:
            symbols[:, positions] = torch.round(values[:, positions] - means)
            indexes[:, positions] = table_indexes(self.net.gaussian_conditional, scales)
            return symbols[:, positions] + means

        self._scan_for_coding(predicted, choose)
        return compress(self.net.gaussian_conditional, symbols, indexes)

    def decode_y(self, string: bytes, predicted: Tensor, adaptation: Adaptation | None) -> Tensor:
        stream = StreamDecoder(self.net.gaussian_conditional, string, predicted.numel() // self.predicted)

        def choose(positions: Tensor, scales: Tensor, means: Tensor) -> Tensor:
            return stream.next(table_indexes(self.net.gaussian_conditional, scales)) + means

        y_hat = self._scan_for_coding(predicted, choose)
        stream.finish()
        return y_hat

    def _scan_for_coding(self, predicted: Tensor, choose: Choose) -> Tensor:
        """y_hat position by position, in raster order as CompressAI writes it, in float64 on the CPU.

        Encoder and decoder both come here: sums in another order would differ in a last digit, which the recursion may amplify.
        """
        context, parameters = (
            copy.deepcopy(module).cpu().double() for module in (self.net.context_prediction, self.net.entropy_parameters)
        )
        height, width = predicted.shape[-2:]
        return causal_scan(context, parameters, predicted, torch.arange(height * width).split(1), choose)

    @torch.no_grad()
    def _round_serially(self, y: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """y rounded hard, each position about the mean that those before it predict, and these means; of the shape of y."""
        values = _rows(y)
        offsets = torch.empty_like(values)

        def choose(positions: Tensor, scales: Tensor, means: Tensor) -> Tensor:
            offsets[:, positions] = means
            return torch.round(values[:, positions] - means) + means

        fronts = independent_fronts(y.shape[-2], y.shape[-1], y.device)
        y_hat = causal_scan(self.net.context_prediction, self.net.entropy_parameters, predicted, fronts, choose)
        return y_hat, offsets.transpose(1, 2).reshape(y.shape)


@lru_cache(maxsize=8)
def independent_fronts(height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    """The positions of a ``height`` x ``width`` latent, counted in raster order, in groups ``[n]`` that are to be scanned one after
    another: (h, w) is in group 3h + w, since the farthest of its context above is (h - 1, w + 2)."""
    positions = torch.arange(height * width)
    front = (REACH + 1) * (positions // width) + positions % width
    sizes = front.bincount()
    return front.argsort(stable=True).to(device).split(sizes[sizes > 0].tolist())


def causal_scan(
    context: MaskedConv2d, parameters: nn.Sequential, predicted: Tensor, groups: Iterable[Tensor], choose: Choose
) -> Tensor:
    """y_hat ``[B, M, h, w]``, found group by group of positions.

    Args:
        context: The masked convolution.
        parameters: 1 x 1 convolutions and activations, to scales and means.
        predicted: Output of the hyper-synthesis, ``[B, 2M, h, w]``; the arithmetic is of its type and on its device.
        groups: Positions ``[n]`` in raster order; together they are all, and the context of each is in groups before its own.
        choose: Says y_hat where scales and means are known.
    """
    batch, _, height, width = predicted.shape
    predicted, channels, device = _rows(predicted), context.in_channels, predicted.device
    weight = context.weight.flatten(2)[:, :, :TAPS].transpose(1, 2).flatten(1)  # [2M, TAPS * M]
    stride = width + 2 * REACH
    y_hat = predicted.new_zeros(batch, (REACH + height) * stride, channels)  # with the zeros above and beside it
    tap = torch.arange(TAPS, device=device)
    taps = tap // KERNEL * stride + tap % KERNEL
    for positions in groups:
        corners = positions // width * stride + positions % width
        seen = F.linear(y_hat[:, corners[:, None] + taps].flatten(2), weight, context.bias)
        x = torch.cat([predicted[:, positions], seen], 2)
        for layer in parameters:
            x = F.linear(x, layer.weight.flatten(1), layer.bias) if isinstance(layer, nn.Conv2d) else layer(x)
        scales, means = x.chunk(2, 2)
        y_hat[:, corners + REACH * stride + REACH] = choose(positions, scales, means)
    inner = y_hat.reshape(batch, REACH + height, stride, channels)[:, REACH:, REACH : REACH + width]
    return inner.permute(0, 3, 1, 2)


def _rows(values: Tensor) -> Tensor:
    """``[B, C, h, w]`` as ``[B, h * w, C]``."""
    return values.flatten(2).transpose(1, 2).contiguous()


@torch.no_grad()
def _mask(context: MaskedConv2d, *_: object) -> None:
    context.weight.masked_fill_(context.mask == 0, 0)  # a product would leave zeros of both signs, which hash apart
