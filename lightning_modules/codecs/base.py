"""What every codec of the project offers: one small interface over CompressAI's models.

An adapter says how an image becomes latents, about which offsets they are rounded, how many bits they cost, and how they
become an image or strings again. It knows no method of rounding, no metric and no file format.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import torch
from compressai.models import CompressionModel
from torch import Tensor, nn

from lightning_modules.codecs.adaptation import Adaptation
from lightning_modules.codecs.frozen import FrozenTransform

Distortion = Literal["mse", "ms_ssim"]
"""What a model weighs the rate against: the squared error, or 1 - MS-SSIM."""

TRANSFORMS = ("g_a.", "g_s.")
"""How the names of the weights of the analysis and of the synthesis begin."""

Quantise = Callable[[Tensor, Tensor | None], Tensor]
"""``quantise(value, offset)``: a hard, relaxed or noisy rounding of ``value`` about ``offset`` (``None``: about 0)."""


@dataclass(frozen=True)
class Latents:
    """The real-valued latents of a batch, before any rounding.

    Attributes:
        y: Latents of the image, ``[B, M, H/16, W/16]``, in steps of the quantiser: integers (about an offset) can be coded.
        z: Hyper-latents, ``[B, N, H/64, W/64]``; ``None`` for a codec without a hyperprior.
        gain: Quantisation steps in one unit of the transforms' latents, per image, ``[B, 1, 1, 1]``; ``None`` for a codec of one
            rate, whose step is the unit.
    """

    y: Tensor
    z: Tensor | None
    gain: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Latents:
        """The latents with ``function`` applied to y and z."""
        return Latents(function(self.y), None if self.z is None else function(self.z), self.gain)

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that exist, y first."""
        return (self.y,) if self.z is None else (self.y, self.z)


@dataclass(frozen=True)
class Prior:
    """p(y_hat | z_hat): a Gaussian convolved with U(-1/2, 1/2), element by element.

    Attributes:
        scales: Standard deviations, ``[B, M, H/16, W/16]``, positive after the entropy model's lower bound of 0.11.
        means: Means of the same shape; ``None`` where the codec predicts none (all zero).
    """

    scales: Tensor
    means: Tensor | None = None

    def image(self, i: int) -> Prior:
        """That of image ``i`` of the batch: ``[1, ...]``."""
        return Prior(self.scales[i : i + 1], None if self.means is None else self.means[i : i + 1])


@dataclass(frozen=True)
class Quantised:
    """Quantised latents with the prior that the quantised hyper-latents predict.

    Attributes:
        y_hat: ``[B, M, H/16, W/16]``.
        z_hat: ``[B, N, H/64, W/64]`` or ``None``.
        prior: The density of ``y_hat`` by the model; ``None`` for a fully factorised codec.
        adaptations: What the file of each image changes about it; empty: nothing.
        gain: See :class:`Latents`; ``y_hat`` and ``prior`` are in steps of the quantiser.
    """

    y_hat: Tensor
    z_hat: Tensor | None
    prior: Prior | None
    adaptations: tuple[Adaptation | None, ...] = ()
    gain: Tensor | None = None

    def image(self, i: int) -> Quantised:
        """Image ``i`` of the batch: ``[1, ...]``."""
        z_hat = None if self.z_hat is None else self.z_hat[i : i + 1]
        prior = None if self.prior is None else self.prior.image(i)
        gain = None if self.gain is None else self.gain[i : i + 1]
        return Quantised(self.y_hat[i : i + 1], z_hat, prior, self.adaptations[i : i + 1], gain)

    @property
    def adapted_prior(self) -> Prior | None:
        """The prior as the adaptations have it.

        A prediction is rounded, as in the file, except where ``y_hat`` asks for a gradient.
        """
        if self.prior is None or not any(self.adaptations):
            return self.prior
        rows = []
        for i, adaptation in enumerate(self.adaptations):
            prior, y_hat = self.prior.image(i), self.y_hat[i : i + 1]
            scales, means = prior.scales, torch.zeros_like(y_hat) if prior.means is None else prior.means
            if adaptation is not None:
                shift = adaptation.predict(y_hat - means)
                scales, means = adaptation.scales(scales), means + (shift if shift.requires_grad else shift.round())
            rows.append((scales, means))
        return Prior(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


@dataclass(frozen=True)
class Bits:
    """Bits of each image of a batch, by the densities (not by the coder).

    Attributes:
        y: Bits of ``y_hat`` and of the adaptation of its prior, ``[B]``.
        z: Bits of ``z_hat``, ``[B]``; zero for a codec without a hyperprior.
    """

    y: Tensor
    z: Tensor

    @property
    def total(self) -> Tensor:
        """Bits of the image, ``[B]``."""
        return self.y + self.z


@lru_cache(maxsize=64)
def _constants(values: tuple[int, ...], device: torch.device) -> Tensor:
    """``[B]`` in fp32; kept, as every step needs them."""
    return torch.tensor(values, dtype=torch.float32, device=device)


class Codec(nn.Module, ABC):
    """A CompressAI model behind the interface that training, refinement and files share.

    Attributes:
        net: The CompressAI model. Its parameters and buffers are the whole state of a codec.
        stride: Sides of the input of :meth:`analyse` must be multiples of this many pixels.
    """

    net: CompressionModel
    stride: int
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
    def quantise(self, latents: Latents, quantise: Quantise) -> Quantised:
        """Latents rounded by ``quantise``, hyper-latents first, each about the offset at which it is coded.

        ``quantise`` is called once with the very tensors that ``latents`` holds, so that it can tell them apart.
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
            strings: Of a file.
            height: Of the padded image, in pixels.
            width: Of the padded image, in pixels.
            gain: Of the file; ``None`` for a codec of one rate.

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
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.net.parameters()).device
