"""Copies of this process that are killed before one of their file operations."""

from __future__ import annotations

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

EVERY = int(os.environ.get("KILL_EVERY", "10"))
"""Operations between two kills: 1 tries every one, which takes many minutes."""


def dies_at(number: int, folder: Path) -> None:
    """Kills this process before its operation with this number, from 0, on a file of ``folder``."""
    count = iter(range(sys.maxsize))

    def tick() -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and str(folder) in str(arguments[0]) + str(arguments[1]):
            tick()

    def sync(descriptor: int) -> None:
        tick()
        original(descriptor)

    original, os.fsync = os.fsync, sync
    sys.addaudithook(hook)


def in_a_process(task: Callable[[], None]) -> int:
    """Status of a copy of this process that does a task: 0 where it ended, -9 where it was killed. It starts in milliseconds."""
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
