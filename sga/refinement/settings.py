"""How latents are optimised: what the files of ``configs/refine`` say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from sga.refinement.relaxation import Method
from sga.refinement.schedules import Constant, Schedule

Precision = Literal["auto", "fp32", "bf16"]
"""Arithmetic of the synthesis in a step; see :func:`step_dtype`."""

Select = Literal["best", "last"]
"""Which latents a refinement ends with; see :class:`RefinerSettings`."""


@dataclass(frozen=True)
class RefinerSettings:
    """How latents are optimised.

    Attributes:
        rounding: Method: the relaxation of rounding.
        temperature: tau at each step.
        steps: Adam steps; 0 leaves the latents as the encoder made them.
        adapt_prior: Whether a file may tell its decoder about the prior of its image, in some 50 bytes, where that pays and there
            are steps; see :class:`sga.codecs.adaptation.Adaptation`. It is found anew at each hard evaluation. CompressAI does not
            read such files.
        learning_rate: Learning rate of y.
        learning_rate_z: Learning rate of z; by default that of y.
        learning_rate_factor: Factor of both rates at each step.
        betas: Decays of Adam's means of the gradient and of its square.
        evaluate_every: Steps between two hard evaluations.
        select: ``best`` of the hard evaluations, the unrefined latents among them, so that no image gets worse; or the ``last``
            latents, as the papers do.
        precision: Arithmetic of the steps: ``bf16``, ``fp32``, or ``auto``: bf16 where the processor multiplies in it.
            Evaluations and files are in fp32 always.

    Raises:
        ValueError: A number is out of range; it has the name that it has in the files of ``configs/refine``.
    """

    rounding: Method
    temperature: Schedule
    steps: int = 500
    adapt_prior: bool = False
    learning_rate: float = 5e-3
    learning_rate_z: float | None = None
    learning_rate_factor: Schedule = Constant()  # noqa: RUF009  (immutable)
    betas: tuple[float, float] = (0.9, 0.999)
    evaluate_every: int = 50
    select: Select = "best"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.evaluate_every < 1:
            raise ValueError("model.steps must be at least 0 and model.evaluate_every at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"model.learning_rate must be above 0, not {self.learning_rate}")
        if self.learning_rate_z is not None and not 0 < self.learning_rate_z < math.inf:
            raise ValueError(f"model.learning_rate_z must be above 0, not {self.learning_rate_z}")
        for name, schedule in {"temperature": self.temperature, "learning_rate_factor": self.learning_rate_factor}.items():
            for step in (0, self.steps - 1) if self.steps else ():
                if not (value := schedule(step, self.steps)) > 0:
                    raise ValueError(f"model.{name} must be above 0 at every step, and is {value:g} at step {step}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("model.betas must be at least 0 and below 1")

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Learning rates of y and of z."""
        return self.learning_rate, self.learning_rate if self.learning_rate_z is None else self.learning_rate_z


def step_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The arithmetic of a step on a device; ``auto`` is bf16 where the device multiplies matrices in it."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
