"""Copies of this process that are killed before one of their file operations, and what a run leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.symlink"}
"""Events of the interpreter that are counted; a synchronisation with the disk is counted too, although it is no event."""


def count_operations(folder: Path, at: Callable[[int], None]) -> None:
    """From now on, calls ``at(n)`` before the n-th operation of this process, from 0, on a file of ``folder``."""
    count = iter(range(sys.maxsize))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and str(folder) in str(arguments[0]) + str(arguments[1]):
            at(next(count))

    def sync(fd: Any) -> None:
        at(next(count))
        original(fd)

    original, os.fsync = os.fsync, sync
    sys.addaudithook(hook)


def dies_at(number: int, folder: Path) -> None:
    """Kills this process before its operation with this number, from 0, on a file of ``folder``."""

    def die(now: int) -> None:
        if now == number:
            os.kill(os.getpid(), signal.SIGKILL)

    count_operations(folder, die)


def in_a_process(task: Callable[[], None]) -> int:
    """Status of a copy of this process that does a task: 0 where it ended, -9 where it was killed. It starts in milliseconds.

    The task may compute gradients only where this process never has.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            torch.set_num_threads(1)  # the other threads of this process are not copied, and waited for would never come
            task()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(output: Path) -> dict[str, Any]:
    """Content of each file of a run by its path, without times; of curves, whose names hold the time, the number of files."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in output.rglob("*") if not path.is_dir()):
        name, folder = str(path.relative_to(output)), str(path.parent.relative_to(output))
        if folder.startswith("tensorboard"):
            found[folder] = found.get(folder, 0) + 1
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            with path.open() as file:
                found[name] = [_timeless(row) for row in csv.DictReader(file)]
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {name: _timeless(value) for name, value in content.items() if "seconds" not in name}
