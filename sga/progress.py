"""Progress of ONE photograph's refinement: a bar on a terminal or in a notebook, or a function of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sga.refinement.refiner import Listener
from sga.refinement.result import Progress

if TYPE_CHECKING:
    from rich.console import Console

OnStep = Callable[[int, int, float], object]
"""``f(step, steps, loss)``: steps done, steps in all, and the R-D loss of the best latents so far."""


@contextmanager
def listening(progress: bool | OnStep, steps: int) -> Iterator[Listener | None]:
    """Context with a listener for a refinement of ``steps`` steps; ``None`` where nothing is shown or called.

    Args:
        progress: Bar on standard error where that is a terminal, or in a notebook (``True``); nothing (``False``); or a function.
        steps: Adam steps of the refinement.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if callable(progress):
        yield _calling(progress, steps)
    elif progress and console.is_jupyter:
        yield _calling(_in_notebook(steps), steps)
    elif progress and console.is_terminal:
        with _on_terminal(console, steps) as on_step:
            yield _calling(on_step, steps)
    else:
        yield None


def _calling(on_step: OnStep, steps: int) -> Listener:
    def listener(progress: Progress) -> None:
        on_step(progress.evaluated_steps[-1], steps, float(progress.best_loss.mean()))

    return listener


@contextmanager
def _on_terminal(console: Console, steps: int) -> Iterator[OnStep]:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    step = TextColumn("step {task.completed:.0f}/{task.total:.0f}  R-D loss {task.fields[loss]}")
    with Bar(BarColumn(), step, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("refine", total=steps, loss="-")
        yield lambda step, steps, loss: bar.update(task, completed=step, loss=f"{loss:.4f}")


def _in_notebook(steps: int) -> OnStep:
    """IPython's own bar, since rich's would need ipywidgets in a notebook."""
    from IPython.display import ProgressBar

    bar = ProgressBar(max(steps, 1))
    bar.display()

    def on_step(step: int, steps: int, loss: float) -> None:
        bar.progress = step  # also redraws the bar

    return on_step
