from __future__ import annotations

import pytest
import torch

from sga.progress import listening
from sga.refinement.result import CURVES, EVALUATED, Progress


def now(step: int) -> Progress:
    """A refinement of one image after ``step`` steps."""
    return Progress(torch.zeros(step, len(CURVES), 1), torch.zeros(2, len(EVALUATED), 1), [0, step], torch.tensor([0.75]))


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(True, 10) as listener:
        assert listener is None  # standard error is captured
    with listening(False, 10) as listener:
        assert listener is None
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    with listening(True, 10) as listener:
        assert listener is not None
        listener(now(10))
    out, error = capsys.readouterr()
    assert out == "" and "0.7500" in error and "10/10" in error


def test_a_function_hears_step_steps_and_loss() -> None:
    heard: list[tuple[int, int, float]] = []
    with listening(lambda *words: heard.append(words), 10) as listener:
        assert listener is not None
        listener(now(5))
    assert heard == [(5, 10, 0.75)]
