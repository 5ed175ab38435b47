"""Cost of decoding in multiply-accumulates, which depends on the codec alone."""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sga.codecs import Codec

_COUNTED: WeakKeyDictionary[Codec, float] = WeakKeyDictionary()


def kmacs_per_pixel(codec: Codec) -> float:
    """Thousands of multiply-accumulates of a decoder per pixel of the padded image: hyper-synthesis, context model, synthesis.

    Counted once per codec with torch's ``FlopCounterMode``, on the smallest image that the codec takes: convolutions cost the same
    at every position. The entropy coder and elementwise operations do not count.
    """
    if codec not in _COUNTED:
        _COUNTED[codec] = _count(codec)
    return _COUNTED[codec]


@torch.no_grad()
def _count(codec: Codec) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    parallel = copy.copy(codec)
    parallel.training = True  # a context model then runs once per position; its serial rounding would run twice
    with torch.autocast(codec.device.type, enabled=False):
        x = torch.zeros(1, 3, codec.stride, codec.stride, device=codec.device)
        latents = codec.analyse(x).map(torch.Tensor.float)
        with FlopCounterMode(display=False) as counter:
            codec.synthesise(codec.dequantise(parallel.quantise(latents, _as_it_is, _as_it_is)))
    return counter.get_total_flops() / 2 / codec.stride**2 / 1000


def _as_it_is(value: Tensor, offset: Tensor | None) -> Tensor:
    """The value, unchanged; in place of a rounding, which has no multiplications."""
    return value
