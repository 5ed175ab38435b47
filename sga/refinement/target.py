"""A size or a quality that a refinement is to reach, and how lambda moves until it does."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sga.checks import require_positive
from sga.rate_distortion import Objective, RateDistortion
from sga.refinement.settings import Select

SLOPE = 0.25
"""d log(bpp) / d log(lambda) of a refinement, and - d log(MSE) / d log(lambda): 0.2 to 0.3 as measured on photographs."""

LIMIT = 7.0
"""log(lambda) stays this close to where it started: beyond, the loss is rate or distortion alone."""

MOVING = 0.7
"""Share of the steps in which lambda moves; then the latents converge at the lambda that was found."""

PROPORTIONAL, INTEGRAL = 0.25, 0.4
"""Shares of what the present error asks for, and of what each evaluation adds for good: with them lambda settles where latents
follow at once and slopes are twice :data:`SLOPE`, and where latents need several evaluations to follow."""

NOT_READY = 1e6
"""Above the score of any latents that are inside the tolerance."""

OPTIONS = {"bpp": "target_bpp", "psnr_db": "target_psnr"}
"""What the commands call a target of each quantity."""


@dataclass(frozen=True)
class Target:
    """What the file of every image is to have.

    Attributes:
        quantity: ``bpp``: bits of the file, header included, a pixel; ``psnr_db``: PSNR of the 8-bit image decoded from it.
        value: Bits per pixel, or dB.

    Raises:
        ValueError: ``value`` is not a finite number above 0.
    """

    quantity: Literal["bpp", "psnr_db"]
    value: float

    def __post_init__(self) -> None:
        require_positive(**{OPTIONS[self.quantity]: self.value})

    @classmethod
    def of(cls, bpp: float | None, psnr_db: float | None) -> Target | None:
        """The one that is given, ``None`` where none is.

        Raises:
            ValueError: Both are given, or it is not a finite number above 0.
        """
        if bpp is not None and psnr_db is not None:
            raise ValueError("target_bpp and target_psnr exclude each other: give one of them")
        if bpp is not None:
            return cls("bpp", bpp)
        return None if psnr_db is None else cls("psnr_db", psnr_db)

    @property
    def tolerance(self) -> float:
        """The largest size of :meth:`error` that counts as reached: 1 % of the bytes, or 0.05 dB."""
        return 0.0099 if self.quantity == "bpp" else 0.05 * math.log(10) / 10

    def error(self, bpp: Tensor, psnr_db: Tensor) -> Tensor:
        """log(target / bpp), or log(MSE / target's MSE): above 0 where lambda must grow. Of the arguments' shape."""
        if self.quantity == "bpp":
            return torch.log(self.value / bpp)
        return (self.value - psnr_db) * (math.log(10) / 10)

    def error_of_file(self, bpp: float, psnr_db: float | None) -> float:
        """The same of one file; a ``psnr_db`` of ``None`` is that of a perfect image."""
        return float(self.error(torch.tensor(bpp), torch.tensor(math.inf if psnr_db is None else psnr_db)))

    def reached(self, bpp: float, psnr_db: float | None) -> bool:
        """Whether a file is inside the tolerance."""
        return abs(self.error_of_file(bpp, psnr_db)) <= self.tolerance

    def missed(self, bpp: float, psnr_db: float | None) -> str:
        """One line about a file outside the tolerance."""
        if self.quantity == "bpp":
            return f"{self.value:g} bpp were not reached: {bpp:.4f} bpp are the nearest; more steps or another model may get nearer"
        found = "a perfect image is" if psnr_db is None else f"{psnr_db:.2f} dB are"
        return f"{self.value:g} dB were not reached: {found} the nearest; more steps or another model may get nearer"


@dataclass(frozen=True)
class FileSize:
    """Bits of a file from the bits that the densities estimate, image by image.

    Attributes:
        ratio: Coded bits an estimated bit, ``[B]``.
        overhead_bpp: Bits of the header a pixel, ``[B]``.
    """

    ratio: Tensor
    overhead_bpp: Tensor

    def bpp(self, estimated: Tensor) -> Tensor:
        """Bits per pixel of the files, ``[B]``, from estimated ones."""
        return self.ratio * estimated + self.overhead_bpp


class Controller(ABC):
    """What says, at the hard evaluations of a refinement, which loss it goes on with and which latents are the best.

    Attributes:
        objective: Loss of the steps from now on.
    """

    objective: Objective

    @abstractmethod
    def score(self, found: RateDistortion, progress: float) -> Tensor:
        """Rank of hard-rounded latents, ``[B]``, the least is the best; ``progress`` in [0, 1] of the steps are done."""

    @abstractmethod
    def observe(self, found: RateDistortion, progress: float) -> Objective:
        """The loss to go on with after a hard evaluation."""


class FixedLambda(Controller):
    """One loss from the first step to the last.

    Args:
        objective: Loss that is minimised.
        select: ``best``: latents rank by their true loss; ``last``: by their step, as in the papers.
    """

    def __init__(self, objective: Objective, select: Select = "best") -> None:
        self.objective, self.select = objective, select

    def score(self, found: RateDistortion, progress: float) -> Tensor:
        return torch.full_like(found.loss, -progress) if self.select == "last" else found.loss

    def observe(self, found: RateDistortion, progress: float) -> Objective:
        return self.objective


class LambdaController(Controller):
    """Moves the lambda of each image at the hard evaluations of a refinement until its file is what is asked for.

    A proportional-integral rule on log(lambda), which knows of a model no more than :data:`SLOPE`. Images do not know of one
    another.

    Args:
        target: What is asked for.
        start: The loss; its lambda, a number or ``[B]``, is the first.
        size: Size of the files.
        moving: Share of the steps in which lambda moves; 0 leaves it.
    """

    def __init__(self, target: Target, start: Objective, size: FileSize, moving: float = MOVING) -> None:
        self.target, self.size, self.moving = target, size, moving
        self._first = torch.as_tensor(start.lmbda, device=size.ratio.device).expand_as(size.ratio).log()
        self.objective = replace(start, lmbda=self._first.exp())
        self._integral = torch.zeros_like(self._first)

    def score(self, found: RateDistortion, progress: float) -> Tensor:
        """What ranks hard-rounded latents, ``[B]``, the least first: those inside half the tolerance (the estimate is not the
        file) by their distortion where the rate is given, and by their rate where the PSNR is; then the others by their
        error; last those of before lambda came to rest."""
        error = self._error(found).abs()
        inside = (found.loss - found.bpp) / self.objective.lmbda if self.target.quantity == "bpp" else found.bpp
        outside = NOT_READY * (1 + error)
        ready = torch.where(error <= self.target.tolerance / 2, inside, outside)
        return ready if progress >= self.moving else outside + NOT_READY * LIMIT

    def observe(self, found: RateDistortion, progress: float) -> Objective:
        """The loss to go on with after a hard evaluation, with ``progress`` in [0, 1] of the steps done."""
        if progress < self.moving:
            error = self._error(found)
            self._integral = (self._integral + INTEGRAL * error / SLOPE).clamp(-LIMIT, LIMIT)
            change = (PROPORTIONAL * error / SLOPE + self._integral).clamp(-LIMIT, LIMIT)
            self.objective = replace(self.objective, lmbda=(self._first + change).exp())
        return self.objective

    def _error(self, found: RateDistortion) -> Tensor:
        # Clamped: a perfect image has an infinite PSNR.
        return self.target.error(self.size.bpp(found.bpp), found.psnr_db).clamp(-LIMIT, LIMIT)
