"""The optimiser of a training and its schedule: plain torch."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_modules.soap import Soap
from sga.codecs import Codec


def adam(codec: Codec, learning_rate: float, auxiliary_learning_rate: float) -> Adam:
    """One fused Adam with two parameter groups, ``codec`` and ``quantiles``; the latter is what the auxiliary loss trains."""
    return torch.optim.Adam(_groups(codec, learning_rate, auxiliary_learning_rate), fused=True)


def soap(codec: Codec, learning_rate: float, auxiliary_learning_rate: float) -> Soap:
    """One SOAP with the same groups, of which the second has Adam."""
    main, quantiles = _groups(codec, learning_rate, auxiliary_learning_rate)
    return Soap([main, {**quantiles, "precondition": False}])


def _groups(codec: Codec, learning_rate: float, auxiliary_learning_rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    chosen = {id(parameter) for parameter in codec.quantiles}
    main = [parameter for parameter in codec.parameters() if id(parameter) not in chosen and parameter.requires_grad]
    return (
        {"params": main, "lr": learning_rate, "name": "codec"},
        {"params": codec.quantiles, "lr": auxiliary_learning_rate, "name": "quantiles"},
    )


class Cosine(LRScheduler):
    """Linear warm-up over steps, then a cosine to the end of the training, of the first group; the others stay as they are.

    Args:
        optimizer: Its learning rates are the highest.
        final_learning_rate: At the end.
        warmup_steps: Steps of the warm-up.
        steps: Steps of the whole training.
    """

    def __init__(self, optimizer: Optimizer, final_learning_rate: float, warmup_steps: int, steps: float) -> None:
        self.final_learning_rate, self.warmup_steps, self.length = final_learning_rate, warmup_steps, steps
        super().__init__(optimizer)

    @property
    def progress(self) -> float:
        """From 0 to 1, the end."""
        return min(1.0, max(0.0, (self.last_epoch - self.warmup_steps) / max(1, self.length - self.warmup_steps)))

    def get_lr(self) -> list[float | torch.Tensor]:
        first, *others = self.base_lrs
        warm = min(1.0, (self.last_epoch + 1) / (self.warmup_steps + 1))
        falling = 0.5 * (1 + math.cos(math.pi * self.progress))
        return [warm * (self.final_learning_rate + (first - self.final_learning_rate) * falling), *others]

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch, "length": self.length, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where a checkpoint has it; one of another length would make the rate jump.

        Raises:
            ValueError: The training was to have another length; an old checkpoint does not say.
        """
        length = state_dict.get("length", self.length)
        if length != self.length:
            raise ValueError(
                f"the run's cosine ends after {length} steps, not {self.length}: leave --trainer.max_steps as it was, or "
                "train on from the run's weights: --output NEW --model.warm_start RUN/best.ckpt"
            )
        super().load_state_dict(state_dict)


class WallTimeCosine(Cosine):
    """A :class:`Cosine` over wall time.

    The clock starts with the schedule, so that a compilation counts, and goes on where a checkpoint has it. It is for one device:
    each would go by its own clock.

    Args:
        optimizer, final_learning_rate, warmup_steps: See :class:`Cosine`.
        seconds: Length of the whole training.
    """

    def __init__(self, optimizer: Optimizer, final_learning_rate: float, warmup_steps: int, seconds: float) -> None:
        self.elapsed, self._last = 0.0, time.monotonic()
        super().__init__(optimizer, final_learning_rate, warmup_steps, seconds)

    @property
    def progress(self) -> float:
        return min(1.0, self.elapsed / self.length)

    def step(self, epoch: int | None = None) -> None:
        now = time.monotonic()
        self.elapsed, self._last = self.elapsed + now - self._last, now
        super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where a checkpoint has it, with another length along another cosine: a machine may be lent again, or longer."""
        super().load_state_dict({**state_dict, "length": self.length})
        self._last = time.monotonic()
