"""Schedules over a refinement: the temperature tau(t) of relaxed rounding, and the learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from sga.checks import require_positive


class Schedule(ABC):
    """A number of at least 0 for each step of a refinement: a temperature (which must stay above 0), a factor of the learning
    rates, or a weight; each serves as any."""

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float:
        """The value at ``step`` (0 ... steps - 1) of ``steps``."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step.

    Attributes:
        value: Above 0.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        require_positive(value=self.value)

    def __call__(self, step: int, steps: int) -> float:
        return self.value


@dataclass(frozen=True)
class SgaTemperature(Schedule):
    """tau(t) = min(tau_max, tau_max exp(-rate (t - t0))) (Yang et al. 2020, section 3.3, and its published code).

    Attributes:
        tau_max: Temperature of the first ``t0`` steps.
        rate: Decay of the logarithm per step.
        t0: Last step at ``tau_max``.
    """

    tau_max: float = 0.5
    rate: float = 1e-3
    t0: int = 700

    def __post_init__(self) -> None:
        require_positive(tau_max=self.tau_max, rate=self.rate)
        if self.t0 < 0:
            raise ValueError(f"t0 must be at least 0, not {self.t0}")

    def __call__(self, step: int, steps: int) -> float:
        return min(self.tau_max, self.tau_max * math.exp(-self.rate * (step - self.t0)))


@dataclass(frozen=True)
class ScaledSgaTemperature(Schedule):
    """tau(t) = min(tau_max, tau_max exp(-decay (t / steps - hold))): the schedule of SGA fitted to any number of steps.

    Attributes:
        tau_max: Temperature of the first part, above 0.
        decay: Decay of the logarithm over all steps; 2 is what the published rate reaches in 2000 steps.
        hold: Share of the steps at ``tau_max``, in [0, 1]; 0.35 is the published 700 of 2000.
    """

    tau_max: float = 0.5
    decay: float = 2.0
    hold: float = 0.35

    def __post_init__(self) -> None:
        require_positive(tau_max=self.tau_max, decay=self.decay)
        if not 0 <= self.hold <= 1:
            raise ValueError(f"hold must be in [0, 1], not {self.hold}")

    def __call__(self, step: int, steps: int) -> float:
        return min(self.tau_max, self.tau_max * math.exp(-self.decay * (step / steps - self.hold)))


@dataclass(frozen=True)
class SgaPlusTemperature(Schedule):
    """tau(t) = min(tau_max, exp(-rate t)) (Perugachi-Diaz et al. 2024, section 4).

    Attributes:
        tau_max: Highest temperature.
        rate: Decay of the logarithm per step.
    """

    tau_max: float = 1.0
    rate: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(tau_max=self.tau_max, rate=self.rate)

    def __call__(self, step: int, steps: int) -> float:
        return min(self.tau_max, math.exp(-self.rate * step))


@dataclass(frozen=True)
class ScaledTemperature(Schedule):
    """tau(t) = min(tau_max, exp(-decay t / steps)): the schedule of SGA+ stretched or shrunk to any number of steps.

    Attributes:
        tau_max: Highest temperature.
        decay: exp(-decay) is the last temperature; 2 is what the published rate reaches in 2000 steps.
    """

    tau_max: float = 1.0
    decay: float = 2.0

    def __post_init__(self) -> None:
        require_positive(tau_max=self.tau_max, decay=self.decay)

    def __call__(self, step: int, steps: int) -> float:
        return min(self.tau_max, math.exp(-self.decay * step / steps))


@dataclass(frozen=True)
class Ramp(Schedule):
    """From one value to another on a straight line.

    Attributes:
        start: At the first step; at least 0.
        end: Behind the last; at least 0.

    Raises:
        ValueError: An end is negative or not finite.
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.start < math.inf and 0 <= self.end < math.inf):
            raise ValueError(f"a ramp goes between finite numbers of at least 0, not from {self.start} to {self.end}")

    def __call__(self, step: int, steps: int) -> float:
        return self.start + (self.end - self.start) * step / steps


@dataclass(frozen=True)
class HoldThenCosine(Schedule):
    """1 for the first part of the steps, then a half cosine down to 0; a factor for a learning rate.

    Attributes:
        hold: Share of the steps at 1, in [0, 1).
    """

    hold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.hold < 1:
            raise ValueError(f"hold must be in [0, 1), not {self.hold}")

    def __call__(self, step: int, steps: int) -> float:
        start = self.hold * steps
        if step <= start:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - start) / (steps - start)))
