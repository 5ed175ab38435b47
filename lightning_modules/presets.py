"""The refinement that a command without a configuration file runs; ``configs/refine/ssl.yaml`` says the same."""

from __future__ import annotations

import torch

from lightning_modules.refinement_module import step_dtype
from lightning_modules.refiner import RefinerSettings
from lightning_modules.rounding import SigmoidScaledLogitRounding
from lightning_modules.temperature import HoldThenCosine, ScaledTemperature


def default_settings(steps: int, device: torch.device | str = "cpu") -> RefinerSettings:
    """Sigmoid scaled logit with a schedule that fits any number of steps, in bf16 where that is fast."""
    return RefinerSettings(
        rounding=SigmoidScaledLogitRounding(a=1.33),
        temperature=ScaledTemperature(tau_max=1.0, decay=2.0),
        steps=steps,
        learning_rate=2e-2,
        learning_rate_z=6.7e-3,
        learning_rate_factor=HoldThenCosine(hold=0.5),
        dtype=step_dtype("auto", torch.device(device)),
    )
