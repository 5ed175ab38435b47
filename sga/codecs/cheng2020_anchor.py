"""The anchor model of Cheng et al. 2020 (arXiv 2001.01568), CompressAI's ``cheng2020-anchor``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from compressai.layers import ResidualBlockWithStride
from compressai.models import Cheng2020Anchor
from torch import Tensor, nn

from sga.codecs.base import TRANSFORMS
from sga.codecs.context_model import ContextModelCodec

FIRST_CONVOLUTION = "g_a.0.conv1.weight"
ATTENTION = "conv_a.0.conv.0.weight"
"""A weight that every attention block has."""


class SubsampledPointwise(nn.Conv2d):
    """A 1 x 1 convolution of stride 2 as one of stride 1 on every second row and column: the same function and weights.

    On processors with AVX-512, oneDNN's gradient of the former writes out of bounds in channels_last (torch 2.15).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name in torch)
        return super().forward(input[..., ::2, ::2])


class Cheng2020AnchorCodec(ContextModelCodec):
    """Adapter of CompressAI's ``Cheng2020Anchor``: residual blocks and sub-pixel convolutions, and the prior of Minnen et al. 2018.

    (A single Gaussian, as CompressAI trains it, in place of the mixture of the paper.)

    Args:
        N: Channels of the transforms, of y and of z.
    """

    published_as = "cheng2020-anchor"
    net: Cheng2020Anchor
    architecture = Cheng2020Anchor
    has_attention = False

    def __init__(self, N: int = 128) -> None:
        super().__init__(N, N)

    @classmethod
    def build(cls, N: int, M: int) -> Cheng2020Anchor:
        net = cls.architecture(N)
        for block in net.g_a:
            if isinstance(block, ResidualBlockWithStride):
                block.skip = SubsampledPointwise(block.skip.in_channels, block.skip.out_channels, 1)
        return net

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Cheng2020AnchorCodec | None:
        if FIRST_CONVOLUTION not in state or "context_prediction.weight" not in state:
            return None
        has_attention = any(name.endswith(ATTENTION) for name in state)
        return cls(len(state[FIRST_CONVOLUTION])) if has_attention == cls.has_attention else None

    def shared_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All but the attention blocks, of the model with them or without; of others, what any codec takes."""
        if FIRST_CONVOLUTION not in state:
            return super().shared_weights(state)
        shared = {name: value for name, value in state.items() if not name.startswith(TRANSFORMS)}
        own = self.net.state_dict()
        for transform in TRANSFORMS:
            for theirs, ours in zip(_plain_blocks(transform, state), _plain_blocks(transform, own), strict=True):
                block = {name: value for name, value in state.items() if name.startswith(theirs)}
                shared |= {ours + name.removeprefix(theirs): value for name, value in block.items()}
        return shared


def _plain_blocks(transform: str, names: Iterable[str]) -> list[str]:
    """How the names of a transform's blocks begin, in their order, without those of attention blocks."""
    names = set(names)
    numbers = sorted({int(name.split(".")[1]) for name in names if name.startswith(transform)})
    blocks = (f"{transform}{number}." for number in numbers)
    return [block for block in blocks if block + ATTENTION not in names]
