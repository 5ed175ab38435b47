"""Random numbers of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Random numbers for a batch of which each image has its own generator.

    An image draws the same numbers in any batch, on any rank and in any order.

    Args:
        seeds: One seed per image.
        device: Where the numbers are drawn.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def uniform(self, like: Tensor) -> Tensor:
        """U(0, 1) of the shape of ``like`` ``[B, ...]`` in fp32, row i from the generator of image i."""
        out = torch.empty_like(like, dtype=torch.float32, memory_format=torch.contiguous_format)
        for row, generator in zip(out, self._generators, strict=True):
            row.uniform_(generator=generator)
        return out

    def logistic(self, like: Tensor) -> Tensor:
        """The difference of two Gumbel variables, drawn as one number: as :meth:`uniform`."""
        return torch.logit(self.uniform(like).clamp_(1e-7, 1 - 1e-7))

    def gumbel(self, like: Tensor) -> Tensor:
        """Standard Gumbel noise: as :meth:`uniform`."""
        return -torch.log(-torch.log(self.uniform(like).clamp_(1e-7, 1 - 1e-7)))

    def signs(self, like: Tensor) -> Tensor:
        """Random signs, -1 or 1: as :meth:`uniform`."""
        return torch.where(self.uniform(like) < 0.5, -1.0, 1.0)


class BatchNoise(Noise):
    """Random numbers of a whole batch from one generator: for training on a GPU, whose steps would wait for a generator per image.

    Args:
        seed: Seed of the generator.
        device: Device where the numbers are drawn.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.empty_like(like, dtype=torch.float32).uniform_(generator=self._generator)
