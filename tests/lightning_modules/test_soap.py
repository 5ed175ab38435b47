from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_modules.soap import Soap, _covariance, _rotate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1))


def train(net: nn.Sequential, optimizer: torch.optim.Optimizer, steps: int) -> float:
    torch.manual_seed(1)
    target = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(), nn.Conv2d(32, 16, 3, padding=1)).requires_grad_(False)
    loss = torch.zeros(())
    for _ in range(steps):
        x = torch.randn(4, 16, 16, 16)
        loss = (net(x) - target(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_it_needs_fewer_steps_than_adam() -> None:
    soap, adam = network(), network()
    assert train(soap, Soap([{"params": list(soap.parameters()), "lr": 3e-3}]), 200) < 0.7 * train(
        adam, torch.optim.Adam(adam.parameters(), 3e-3), 200
    )


def test_without_a_preconditioner_it_is_adam() -> None:
    ours, theirs = network(), network()
    found = train(ours, Soap([{"params": list(ours.parameters()), "lr": 3e-3, "precondition": False}]), 20)
    expected = train(theirs, torch.optim.Adam(theirs.parameters(), 3e-3, betas=(0.95, 0.95)), 21)
    assert found == pytest.approx(expected, rel=0.2)  # one step behind: the first one only looks


def test_the_stack_in_its_bases_is_the_plain_formula() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 4, 5, 6)
    bases = {mode: torch.linalg.qr(torch.randn(3, side, side))[0] for mode, side in zip("abc", (4, 5, 6), strict=True)}
    rotated = _rotate(stack, bases)
    for i in range(3):
        plain = torch.einsum("abc,ax,by,cz->xyz", stack[i], bases["a"][i], bases["b"][i], bases["c"][i])
        torch.testing.assert_close(rotated[i], plain)
        torch.testing.assert_close(_covariance(stack, "b")[i], torch.einsum("abc,adc->bd", stack[i], stack[i]))
    torch.testing.assert_close(_rotate(rotated, bases, back=True), stack)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    net = network()
    optimizer = Soap([{"params": list(net.parameters()), "lr": 3e-3}])
    train(net, optimizer, 5)
    before, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for number, values in optimizer.state_dict()["state"].items():
        for name in ("steps", "mean", "square"):
            assert torch.equal(values[name], state[number][name])


def test_its_state_saves_and_loads() -> None:
    net = network()
    optimizer = Soap([{"params": list(net.parameters()), "lr": 3e-3}])
    train(net, optimizer, 15)
    other = copy.deepcopy(net)
    resumed = Soap([{"params": list(other.parameters()), "lr": 3e-3}])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(net, optimizer, 15) == train(other, resumed, 15)
    # PyTorch leaves a state named "step" on the CPU when it loads one, whatever the device of the weights.
    assert not any("step" in state for state in resumed.state.values())
