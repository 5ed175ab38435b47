"""Runs the cases of ``compare_commits.py`` in a tree; each writes into a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from benchmarks.compared_cases import OUT, SEED, SHARED, Case

LOGS, FAILED = "logs", ".failed"
TAIL = 600
"""Number of characters of a failed command's standard error that are shown, the last ones."""

LIBRARIES = (
    "compressai.zoo jsonargparse pytorch_lightning.cli pytorch_msssim skimage.data torch.utils.tensorboard torchmetrics torchvision"
)
"""Slow imports of the commands that are not of the tree; they would take several seconds per command."""

STARTER = """
import importlib, json, os, runpy, signal, sys

for name in sys.argv[1].split():
    importlib.import_module(name)
for line in sys.stdin:
    task = json.loads(line)
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(task["timeout"])
for descriptor, path in enumerate((os.devnull, task["stdout"], task["stderr"])):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), descriptor)
sys.argv = task["words"]
if task["seed"] is not None:
    exec(task["seeded"])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Script that runs each command in a fork of a process that has imported :data:`LIBRARIES` but nothing of the tree."""

SEEDED = """
from pathlib import Path
from types import SimpleNamespace

seed, found = task["seed"], False
# Only files of the tree itself: an installed package of the same name may be of another commit.
if Path("lightning_modules/refinement_module.py").is_file():
    import lightning_modules.refinement_module as old
    if hasattr(old, "zlib"):
        old.zlib = SimpleNamespace(crc32=lambda _: seed)
        found = True
if Path("sga/photograph.py").is_file():
    import sga.photograph
    rule = getattr(sga.photograph, "seed_of", None)
    # Also in modules that have imported it by name already.
    for module in list(sys.modules.values()) if rule is not None else []:
        if getattr(module, "__dict__", {}).get("seed_of") is rule:
            module.seed_of = lambda *_, **__: seed
            found = True
if not found:
    sys.exit("compare_commits.py knows neither rule of the seeds in this tree")
"""
"""Code that replaces the tree's rule of the seeds by one constant; under the old rule, ``codec.py`` gets it by ``--seed``."""


@dataclass(frozen=True)
class Runner:
    """Runs cases in a tree.

    Attributes:
        tree: Working directory of the commands.
        folder: Folder for the logs and for a folder per case.
        shared: Folder of the pictures and checkpoints that cases read.
        jobs: Number of commands at a time.
        timeout: Longest time per command in seconds.
        own_seeds: Whether the tree keeps its own rule of the seeds.
    """

    tree: Path
    folder: Path
    shared: Path
    jobs: int
    timeout: int
    own_seeds: bool

    def run(self, cases: Sequence[Case]) -> None:
        """Runs cases; the reason of a failure is in the file :data:`FAILED` of the case's folder."""
        (self.folder / LOGS).mkdir(parents=True, exist_ok=True)
        left = iter(cases)
        lock = Lock()

        def work() -> None:
            with self._starter() as starter:
                while True:
                    with lock:
                        case = next(left, None)
                    if case is None:
                        break
                    self._run_case(case, starter)

        with ThreadPoolExecutor(self.jobs) as pool:
            for worker in [pool.submit(work) for _ in range(min(self.jobs, len(cases)))]:
                worker.result()

    def _starter(self) -> subprocess.Popen[str]:
        # One thread, so that sums have a fixed order.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("PYTHONPATH", None)  # the tree's own modules must win
        command = [sys.executable, "-W", "ignore", "-c", STARTER, LIBRARIES]
        return subprocess.Popen(command, cwd=self.tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _run_case(self, case: Case, starter: subprocess.Popen[str]) -> None:
        began, output = time.perf_counter(), self.folder / case.name
        output.mkdir()
        failure = None
        for number, words in enumerate(case.commands):
            failure = failure or self._run_command(words, output, self.folder / LOGS / f"{case.name}.{number}", starter)
        if failure is not None:
            (output / FAILED).write_text(failure)
        print(f"{time.perf_counter() - began:6.1f} s  {case.name}{'  FAILED' if failure else ''}", file=sys.stderr)

    def _run_command(self, words: Sequence[str], output: Path, log: Path, starter: subprocess.Popen[str]) -> str | None:
        """Reason why the command failed, or ``None``."""
        words = [word.replace(OUT, str(output)).replace(SHARED, str(self.shared)) for word in words]
        kept = Path(words[-1]) if words[-2] == ">" else None
        words = words[:-2] if kept is not None else words
        # Training keeps its own seeds.
        seed = None if self.own_seeds or words[0] == "train.py" else SEED
        stdout, stderr = (log.with_name(f"{log.name}.{stream}.txt") for stream in ("stdout", "stderr"))
        task = {"words": words, "seed": seed, "seeded": SEEDED, "timeout": self.timeout}
        assert starter.stdin is not None and starter.stdout is not None
        starter.stdin.write(json.dumps({**task, "stdout": str(stdout), "stderr": str(stderr)}) + "\n")
        starter.stdin.flush()
        code = int(starter.stdout.readline() or "1")
        if code == -signal.SIGALRM:
            return f"{' '.join(words[:2])}: more than {self.timeout} s"
        if code:
            said = stderr.read_text() if stderr.exists() else "could not be started"
            return f"{' '.join(words[:2])}: exit code {code}: {said[-TAIL:].strip()}"
        if kept is not None:
            kept.write_bytes(stdout.read_bytes())
        return None
