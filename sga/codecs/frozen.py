"""Transforms with frozen weights, rewritten for speed: same function, no gradient to a weight, any floating-point type.

What it changes for a 768 x 512 image on a CPU: the constants of GDN are computed once, its backward pass is written out (five
passes over memory instead of a dozen), every tensor stays in channels_last, and the last deconvolution, with three channels out,
becomes an ordinary convolution of the small image.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from compressai.layers import GDN, GDN1
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 8
"""A deconvolution with at most this many output channels is faster as a sub-pixel convolution (more arithmetic, better shape)."""


class FrozenTransform(nn.Module):
    """A ``nn.Sequential`` of CompressAI computed in ``dtype``; inputs and outputs are fp32.

    Args:
        transform: Its weights are copied; later changes to them are not seen.
        dtype: Type of the weights and of the arithmetic.
    """

    def __init__(self, transform: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.layers = nn.Sequential(*(_frozen_layer(layer, dtype) for layer in transform))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.layers(x)
        return out.float()


class FrozenGDN(nn.Module):
    """(Inverse) generalised divisive normalisation, ``x / sqrt(beta + gamma x^2)`` or ``x * sqrt(...)`` (arXiv 1511.06281)."""

    beta: Tensor
    gamma: Tensor
    gamma_transposed: Tensor

    def __init__(self, gdn: GDN, dtype: torch.dtype) -> None:
        super().__init__()
        gamma = gdn.gamma_reparam(gdn.gamma).detach()
        self.inverse = gdn.inverse
        self.register_buffer("beta", gdn.beta_reparam(gdn.beta).detach().to(dtype))
        self.register_buffer("gamma", gamma[:, :, None, None].to(dtype))
        self.register_buffer("gamma_transposed", gamma.t()[:, :, None, None].contiguous().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Gdn.apply(x, self.beta, self.gamma, self.gamma_transposed, self.inverse)
        return out


class SubPixelDeconvolution(nn.Module):
    """A 5 x 5 deconvolution of stride 2 as a 3 x 3 convolution to the four pixels that each input pixel becomes."""

    def __init__(self, deconvolution: nn.ConvTranspose2d, dtype: torch.dtype) -> None:
        super().__init__()
        weight, bias = deconvolution.weight.detach(), deconvolution.bias
        assert bias is not None
        channels_in, channels_out = weight.shape[:2]
        kernel = weight.new_zeros(channels_out, 2, 2, channels_in, 3, 3)
        # Output pixel 2i + p takes input pixel i + d through tap p + 2 - 2d of the deconvolution.
        taps = [(p, d, p + 2 - 2 * d) for p in (0, 1) for d in (-1, 0, 1) if 0 <= p + 2 - 2 * d < 5]
        for p, d, k in taps:
            for q, e, m in taps:
                kernel[:, p, q, :, d + 1, e + 1] = weight[:, :, k, m].t()
        kernel = kernel.reshape(4 * channels_out, channels_in, 3, 3)
        self.kernel = nn.Parameter(kernel.to(dtype).contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(bias.detach().repeat_interleave(4).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.conv2d(x, self.kernel, self.bias, padding=1), 2)


def _frozen_layer(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(layer, GDN) and not isinstance(layer, GDN1):
        return FrozenGDN(layer, dtype)
    if (
        isinstance(layer, nn.ConvTranspose2d)
        and layer.out_channels <= FEW_CHANNELS
        and (layer.kernel_size, layer.stride, layer.padding, layer.output_padding) == ((5, 5), (2, 2), (2, 2), (1, 1))
    ):
        return SubPixelDeconvolution(layer, dtype)
    frozen = nn.utils.convert_conv2d_weight_memory_format(copy.deepcopy(layer).to(dtype), torch.channels_last)
    for name, child in layer.named_children():  # of a residual or attention block
        setattr(frozen, name, _frozen_layer(child, dtype))
    return frozen


class _Gdn(torch.autograd.Function):
    """GDN with a gradient to its input alone.

    With n = beta + gamma x^2 and out = x n^s, s = 1/2 (inverse) or -1/2:
    grad_x = g n^s + 2 s x gamma^T (g x n^(s - 1)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, gamma: Tensor, gamma_transposed: Tensor, inverse: bool) -> Tensor:
        norm = F.conv2d(x * x, gamma, beta)
        factor = norm.sqrt_() if inverse else norm.rsqrt_()
        ctx.save_for_backward(x, factor, gamma_transposed)
        ctx.inverse = inverse
        return x * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, gamma_transposed = ctx.saved_tensors
        # Mixed memory formats make the element-wise kernels thirty times slower.
        grad = grad.contiguous(memory_format=torch.channels_last)
        inner = grad * x
        if ctx.inverse:
            inner.div_(factor)
        else:
            inner.mul_(factor).mul_(factor).mul_(factor).neg_()
        grad_x = F.conv2d(inner, gamma_transposed).mul_(x)
        return grad_x.addcmul_(grad, factor), None, None, None, None
