"""SOAP (Vyas et al. 2024, arXiv 2409.11321): Adam in the eigenbasis of Shampoo's preconditioner.

All parameters of one shape are one stack, so that a step is a few batched products whatever the number of layers, and the host
never waits for the device. A convolution's weight ``[O, I, k, k]`` is a tensor of three modes, O, I and k^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MODES = "abc"


class Soap(Optimizer):
    """SOAP for matrices and convolutions, Adam for vectors, for small matrices and where a group has ``precondition`` at ``False``.

    The first step finds the eigenbases and changes no preconditioned weight. As PyTorch's fused Adam, it has an attribute
    ``found_inf``, a tensor: where that is 1, a step changes nothing.

    Args:
        groups: Parameter groups with ``params``, ``lr`` and, if wanted, ``precondition``.
        betas: Decay a step of the gradient's mean and of its square's; that of the preconditioners is the second.
        eps: Added to the square root of the latter.
        every: Steps between two updates of the eigenbases, at first and at most: a twentieth of the steps so far, which move them
            ever less.
        largest: Longest side of a preconditioner; longer modes have none.
        smallest: Least length of the first two sides of a parameter; with a shorter one it has Adam.
    """

    found_inf: Tensor

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        every: tuple[int, int] = (10, 50),
        largest: int = 256,
        smallest: int = 16,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "precondition": True})
        self.betas, self.eps, self.every, self.largest, self.smallest = betas, eps, every, largest, smallest

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Does one step; every parameter that ever has a gradient must have one now."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for stack in self._stacks(group):
                if stack[0].grad is not None:
                    self._step_stack(stack, group["lr"], self._modes(stack[0]) if group["precondition"] else None)
        return loss

    def _stacks(self, group: dict[str, Any]) -> list[list[nn.Parameter]]:
        """Stacks of parameters that are updated together: those of one shape; all parameters with Adam form one stack."""
        stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.requires_grad:
                modes = self._modes(parameter) if group["precondition"] else None
                stacks.setdefault(() if modes is None else tuple(parameter.shape), []).append(parameter)
        return list(stacks.values())

    def _modes(self, parameter: Tensor) -> tuple[int, ...] | None:
        """The sides of a preconditioned parameter; ``None`` for one with Adam."""
        shape = parameter.shape
        if len(shape) < 2 or min(shape[:2]) < self.smallest:
            return None
        return (shape[0], shape[1], math.prod(shape[2:]))

    def _step_stack(self, stack: list[nn.Parameter], lr: float, modes: tuple[int, ...] | None) -> None:
        gradients = [parameter.grad.contiguous() for parameter in stack if parameter.grad is not None]
        ok = torch.ones((), device=gradients[0].device)
        if hasattr(self, "found_inf"):
            ok = 1 - self.found_inf.to(ok).reshape(())
        if modes is None:
            gradient = torch.cat([value.flatten() for value in gradients])
        else:
            gradient = torch.stack([value.reshape(modes) for value in gradients])
        gradient = torch.where(ok > 0, gradient, 0.0)
        state = self.state[stack[0]]
        if not state:
            state["steps"] = torch.zeros((), device=gradient.device)
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            state["count"], state["next_turn"] = 0, self.every[0]
            if modes is not None:
                for mode, side in zip(MODES, modes, strict=True):
                    if 1 < side <= self.largest:
                        state[mode] = _covariance(gradient, mode)
                        state[f"basis_{mode}"] = torch.linalg.eigh(state[mode].double())[1].flip(-1).float().contiguous()
                return
        bases = {mode: state[f"basis_{mode}"] for mode in MODES if mode in state}
        rotated = _rotate(gradient, bases)
        state["steps"] += ok
        state["mean"].lerp_(rotated, (1 - self.betas[0]) * ok)
        state["square"].lerp_(rotated.square(), (1 - self.betas[1]) * ok)
        steps = state["steps"].clamp(min=1)
        correction = (1 - self.betas[1] ** steps).sqrt() / (1 - self.betas[0] ** steps)
        update = state["mean"] / (state["square"].sqrt() + self.eps) * (correction * ok * -lr)
        update = _rotate(update, bases, back=True)
        if modes is None:
            updates = [part.view_as(p) for part, p in zip(update.split([p.numel() for p in stack]), stack, strict=True)]
        else:
            updates = [part.view_as(p) for part, p in zip(update, stack, strict=True)]
        for parameter, part in zip(stack, updates, strict=True):
            parameter.add_(part)
        state["count"] += 1
        for mode in bases:
            state[mode].lerp_(_covariance(gradient, mode), (1 - self.betas[1]) * ok)
        if bases and state["count"] >= state["next_turn"]:
            self._turn(state, bases)
            first, most = self.every
            state["next_turn"] = state["count"] + min(most, max(first, state["count"] // 20))

    def _turn(self, state: dict[str, Any], bases: dict[str, Tensor]) -> None:
        """One step of orthogonal iteration for every basis; what is kept in the old ones moves to the new ones."""
        mean = _rotate(state["mean"], bases, back=True)
        for mode, basis in bases.items():
            seen = state[mode] @ basis
            order = (basis * seen).sum(-2).argsort(-1, descending=True)  # by the estimated eigenvalues, [n, side]
            sorted_ = seen.gather(-1, order[:, None].expand_as(seen))
            state[f"basis_{mode}"] = torch.linalg.qr(sorted_)[0]
            axis = 1 + MODES.index(mode)
            shape = [len(order), 1, 1, 1]
            shape[axis] = -1
            state["square"] = state["square"].gather(axis, order.view(shape).expand_as(state["square"]))
        state["mean"] = _rotate(mean, {mode: state[f"basis_{mode}"] for mode in bases})


def _rotate(stack: Tensor, bases: dict[str, Tensor], back: bool = False) -> Tensor:
    """A stack ``[n, a, b, c]`` in the bases ``[n, side, side]`` of its modes, or back from there."""
    for mode, basis in bases.items():
        turned = basis if back else basis.mT  # [n, side, side]
        n, a, b, c = stack.shape
        if mode == "a":
            stack = (turned @ stack.reshape(n, a, b * c)).view(n, a, b, c)
        elif mode == "b":
            stack = turned[:, None] @ stack
        else:
            stack = (stack.reshape(n, a * b, c) @ turned.mT).view(n, a, b, c)
    return stack


def _covariance(stack: Tensor, mode: str) -> Tensor:
    """The sum of outer products of a stack ``[n, a, b, c]`` along one mode: ``[n, side, side]``."""
    n = len(stack)
    rows = {"a": stack, "b": stack.transpose(1, 2), "c": stack.permute(0, 3, 1, 2)}[mode]
    rows = rows.reshape(n, rows.shape[1], -1)
    return rows @ rows.mT
