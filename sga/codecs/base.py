"""What every codec of the project offers: one small interface over CompressAI's models.

An adapter says how an image becomes latents, about which offsets they are rounded, how many bits they cost, and how they
become an image or strings again. It knows no method of rounding, no metric and no file format.
"""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Self

import torch
from compressai.models import CompressionModel
from torch import Tensor, nn

from sga.codecs.frozen import FrozenTransform
from sga.codecs.latents import Bits, Latents, Prior, Quantised

TRANSFORMS = ("g_a.", "g_s.")
"""How the names of the weights of the analysis and of the synthesis begin."""

Round = Callable[[Tensor, Tensor | None], Tensor]
"""``round(value, offset)``: a hard, relaxed or noisy rounding of ``value`` about ``offset`` (``None``: about 0)."""


@lru_cache(maxsize=64)
def _constants(values: tuple[int, ...], device: torch.device) -> Tensor:
    """``[B]`` in fp32; kept, as every step needs them."""
    return torch.tensor(values, dtype=torch.float32, device=device)


class Codec(nn.Module, ABC):
    """A CompressAI model behind the interface that training, refinement and files share.

    Attributes:
        net: The CompressAI model. Its parameters and buffers are the whole state of a codec.
        stride: Sides of the input of :meth:`analyse` must be multiples of this many pixels.
        y_stride: Pixels per element of y, along each side.
        published_as: CompressAI's name of the architecture; ``None`` where it has none.
    """

    net: CompressionModel
    stride: int
    y_stride = 16
    published_as: str | None = None
    variable_rate = False
    """Whether latents have a gain, which a file holds."""
    adaptable = False
    """Whether a file may change the prior of y by an :class:`Adaptation`."""
    synthesis_transforms: tuple[str, ...] = ("g_s", "h_s")
    """Names, in :attr:`net`, of the transforms that a step of a refinement runs."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Codec | None:
        """An untrained codec of the sizes of a CompressAI state dict, or ``None`` where the dict is of another model.

        Raises:
            ValueError: It is of a kind of this model that is not supported.
        """

    @property
    def lmbdas(self) -> tuple[float, float]:
        """Least and greatest lambda of MSE that a gain suits."""
        return 0.0, math.inf

    def gain_for(self, lmbda: float | Tensor) -> Tensor | None:
        """The gain that suits a lambda of MSE, one number or one per image ``[B]``: ``[1, 1, 1, 1]`` or ``[B, 1, 1, 1]``.

        ``None`` for a codec of one rate.
        """
        return None

    def analyse(self, x: Tensor, gain: Tensor | None = None) -> Latents:
        """The latents of images ``x``, ``[B, 3, H, W]`` in [0, 1], H and W multiples of :attr:`stride`.

        Args:
            x: The images.
            gain: See :meth:`gain_for`; ``None``: the codec's own. A codec of one rate ignores it.
        """
        return self.latents_of(self.net.g_a(x))

    @abstractmethod
    def latents_of(self, y: Tensor, gain: Tensor | None = None) -> Latents:
        """``y`` ``[B, M, H/16, W/16]``, in fp32 and in steps of the quantiser, with the z that the encoder would choose for it."""

    @abstractmethod
    def quantise(self, latents: Latents, round_y: Round, round_z: Round) -> Quantised:
        """Latents rounded by ``round_y`` and ``round_z``, hyper-latents first, each about the offset at which it is coded.

        Each is called once; ``round_z`` not at all where there is no z.
        """

    def bits(self, quantised: Quantised) -> Bits:
        """Bits of each image, -log2 of the densities summed over its elements."""
        return self.total_bits(self.bits_of_y(quantised.y_hat, quantised.adapted_prior), quantised)

    def total_bits(self, bits_of_y: Tensor, quantised: Quantised) -> Bits:
        """Bits of each image from those of the elements of y; z and adaptations are those of ``quantised``."""
        bits_y = bits_of_y.sum((1, 2, 3))
        if any(quantised.adaptations):
            told = tuple(0 if adaptation is None else adaptation.bits for adaptation in quantised.adaptations)
            bits_y = bits_y + _constants(told, bits_y.device)
        return Bits(bits_y, torch.zeros_like(bits_y) if quantised.z_hat is None else self.bits_of_z(quantised.z_hat).sum((1, 2, 3)))

    @abstractmethod
    def bits_of_y(self, y_hat: Tensor, prior: Prior | None) -> Tensor:
        """Bits of each element of ``y_hat`` under ``prior``, of its shape."""

    def bits_of_z(self, z_hat: Tensor) -> Tensor:
        """Bits of each element of ``z_hat``, of its shape.

        Raises:
            NotImplementedError: The codec has no z.
        """
        raise NotImplementedError

    def dequantise(self, quantised: Quantised) -> Tensor:
        """What :meth:`synthesise` takes: ``y_hat`` in the unit of the transforms, of its shape."""
        return quantised.y_hat

    @abstractmethod
    def synthesise(self, y_hat: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` of dequantised ``y_hat``, not clamped to [0, 1]."""

    @abstractmethod
    def encode(self, quantised: Quantised) -> list[bytes]:
        """The entropy-coded strings of ONE hard-rounded image (batch of 1); last, where it has one, its adaptation.

        Everything from ``z_hat`` to the indexes of the coder's tables is computed in float64 on the CPU, so that a decoder
        on another machine finds the same indexes.

        Raises:
            RuntimeError: The coder's tables were not made; see :meth:`make_tables`.
        """

    @abstractmethod
    def decode(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Tensor:
        """Dequantised ``y_hat`` ``[1, M, H/16, W/16]`` of strings that :meth:`encode` wrote for a padded image of this size.

        Args:
            strings: Strings of a file.
            height: Height of the padded image, in pixels.
            width: Width of the padded image, in pixels.
            gain: Gain of the file; ``None`` for a codec of one rate.

        Raises:
            ValueError: They are not of this codec.
        """

    def decode_latents(self, strings: Sequence[bytes], height: int, width: int, gain: float | None = None) -> Quantised:
        """As :meth:`decode`, in steps of the quantiser, with ``z_hat`` and the prior where the codec has them: for pictures and
        counts, not for decoding."""
        return Quantised(self.decode(strings, height, width, gain), None, None)

    @property
    @abstractmethod
    def quantiles(self) -> list[nn.Parameter]:
        """The parameters that only the auxiliary loss trains (tails and medians of the factorised densities)."""

    def shared_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of another architecture's state dict this codec can start from, under its own names; by default the analysis and
        synthesis transforms."""
        return {name: value for name, value in state.items() if name.startswith(TRANSFORMS)}

    @classmethod
    def adapters(cls) -> Iterator[type[Codec]]:
        """The adapters that have been imported, those of this class and below."""
        if not inspect.isabstract(cls):
            yield cls
        for adapter in cls.__subclasses__():
            yield from adapter.adapters()

    def auxiliary_loss(self) -> Tensor:
        """Distance of the learned quantiles to their targets, a scalar; it has no gradient to other parameters."""
        with torch.autocast(self.device.type, enabled=False):
            return self.net.aux_loss()

    @torch.no_grad()
    def make_tables(self) -> None:
        """Fits the quantiles and makes the integer tables of the coder. It may move the medians: call it once, before
        anything is estimated, refined or coded, and never on a model that goes on training."""
        self.net.update(force=True, update_quantiles=True)

    def frozen(self, dtype: torch.dtype) -> Self:
        """This codec for refinement: synthesis transforms with frozen weights, computed in ``dtype``.

        It shares the entropy models with this codec, but not the transforms; it is for estimating, not for coding.
        """
        fast = copy.copy(self)
        fast._modules = {"net": copy.copy(self.net)}
        fast.net._modules = dict(self.net._modules)
        for name in self.synthesis_transforms:
            fast.net._modules[name] = FrozenTransform(getattr(self.net, name), dtype)
        return fast.requires_grad_(False).eval()

    @property
    def sizes(self) -> dict[str, int]:
        """Channels of the transforms (N) and of y (M), as checkpoints name them; those of Cheng et al. 2020 take N alone."""
        return {"N": int(self.net.N), "M": int(self.net.M)}

    @property
    def transforms(self) -> list[nn.Module]:
        """The networks of the model, without its entropy models."""
        return [getattr(self.net, name) for name in ("g_a", "g_s", "h_a", "h_s") if hasattr(self.net, name)]

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.net.parameters()).device
