"""Checks that a redesign changed no result: ``python benchmarks/compare_commits.py OLD NEW --assert-equal``.

Runs the same commands (``refine.py``, ``codec.py``, ``train.py``) in a worktree of each commit, with one interpreter, and compares
the files that they write: coded images byte for byte, tables, curves, pictures, weights. ``.`` is the working tree as it is. A
folder that ``--record`` or ``--keep`` has left can take the place of its commit, which then does not run again; the other side
runs the commands that the folder names::

    python benchmarks/compare_commits.py OLD --record FOLDER
    python benchmarks/compare_commits.py FOLDER . --assert-equal --only 'refine_*'

Both sides read the same pictures and the same checkpoints of small codecs, which OLD's ``train.py`` makes. A case is a line of the
output. Times, memory, paths and names of classes are not compared. A column of a table that only one side has is listed at the end
and is not a difference; neither is a new curve or file. A recording is valid for the machine and the torch that made it.

The rule that seeds an image's noise may differ: it was ``zlib.crc32`` of seed and name in ``refine.py`` and the seed itself in
``codec.py``, and is now ``sga.photograph.seed_of`` in both. Unless ``--own-seeds`` is given, the commands start through
:data:`benchmarks.compared_runs.SEEDED`, which replaces either rule by one constant.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.compared_cases import CHECKPOINTS, Case, all_cases, enliven, make_shared
from benchmarks.compared_files import Comparison, compare_facts, read_facts
from benchmarks.compared_runs import FAILED, Runner

RECORDING = "recording.json"


@dataclass(frozen=True)
class Side:
    """Output of the commands of one commit.

    Attributes:
        folder: Folder that has a folder per case.
        shared: Folder of the pictures and checkpoints that the commands read.
        cases: Cases that ran.
        own_seeds: Whether images were seeded by the commit's own rule.
    """

    folder: Path
    shared: Path
    cases: list[Case]
    own_seeds: bool

    @classmethod
    def recorded(cls, folder: Path) -> Side:
        """The side of a recording; prints a note if another version of torch made it."""
        content: dict[str, Any] = json.loads((folder / RECORDING).read_text())
        if content["torch"] != torch.__version__:
            print(f"note: {folder} was made with torch {content['torch']}, this is {torch.__version__}", file=sys.stderr)
        cases = [Case(case["name"], tuple(map(tuple, case["commands"])), case["needs"]) for case in content["cases"]]
        return cls(folder, folder / "shared", cases, content["own_seeds"])

    def save(self, commit: str) -> None:
        """Makes the folder a recording of a commit."""
        content = {"commit": commit, "torch": torch.__version__, "own_seeds": self.own_seeds}
        (self.folder / RECORDING).write_text(json.dumps({**content, "cases": [asdict(case) for case in self.cases]}, indent=2))

    def failure(self, case: str) -> str | None:
        """Reason why a case failed; ``None`` where it did not."""
        path = self.folder / case / FAILED
        return path.read_text() if path.is_file() else None


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Context with a temporary worktree of a commit; for ``.`` the working tree itself."""
    root = Path(git("rev-parse", "--show-toplevel"))
    if commit == ".":
        yield root
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*words: str) -> str:
    """Output of a git command, stripped."""
    return subprocess.run(["git", *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def run_side(commit: str, folder: Path, old: Side | None, args: argparse.Namespace) -> Side:
    """The side of a commit, after running it: with the cases and checkpoints of ``old``, or with all cases where it is ``None``."""
    shared = folder / "shared" if old is None else old.shared
    sha = git("rev-parse", "HEAD" if commit == "." else f"{commit}^{{commit}}") + (" and changes" if commit == "." else "")
    with tree_of(commit) as tree:
        cases = old.cases if old is not None else all_cases(refinements(tree), args.own_seeds)
        wanted = [case for case in cases if fnmatch(case.name, args.only)]
        if not wanted:
            raise SystemExit(f"no case is named {args.only}")
        runner = Runner(tree, folder, shared, args.jobs, args.timeout, args.own_seeds)
        first: list[Case] = []
        if old is None:
            needed = {case.needs for case in wanted}
            first = [case for case in cases if case.name in needed]
            make_shared(shared)
            runner.run(first)
            for case in first:
                if not (folder / case.name / FAILED).exists():
                    enliven(folder / case.name / "last.ckpt", shared / CHECKPOINTS / f"{case.name.removeprefix('train_')}.ckpt")
        runner.run([case for case in wanted if case not in first])
    side = Side(folder, shared, [case for case in cases if case in wanted or case in first], args.own_seeds)
    side.save(sha)
    return side


def refinements(tree: Path) -> list[str]:
    """Names of the files of ``configs/refine``."""
    return sorted(path.stem for path in (tree / "configs" / "refine").glob("*.yaml"))


def compare_case(case: str, old: Side, new: Side) -> Comparison:
    """Comparison of the output of a case on both sides; a failure, or no output at all, is a difference."""
    if case not in {one.name for one in new.cases}:
        return Comparison(differences=["not run on the new side"])
    failures = {name: side.failure(case) for name, side in (("old", old), ("new", new))}
    if any(failures.values()):
        return Comparison(differences=[f"failed on the {name} side: {text}" for name, text in failures.items() if text])
    comparison = compare_facts(read_facts(old.folder / case), read_facts(new.folder / case))
    if not comparison.values:
        comparison.differences.append("nothing to compare was written")
    return comparison


def report(old: Side, new: Side, only: str) -> bool:
    """Whether all cases are equal; prints a line per case, and the items that only one side has."""
    comparisons = {case.name: compare_case(case.name, old, new) for case in old.cases if fnmatch(case.name, only)}
    if not comparisons:
        raise SystemExit(f"no case is named {only}")
    width = max(map(len, comparisons))
    for case, comparison in comparisons.items():
        count = len(comparison.differences)
        more = f" (and {count - 1} more)" if count > 1 else ""
        result = f"DIFFERS {comparison.differences[0]}{more}" if count else f"equal {comparison.values} values"
        print(f"{case:{width}}  {' '.join(result.split())}")
    for side, kind, item in sorted(set().union(*(comparison.one_sided for comparison in comparisons.values()))):
        print(f"on the {side} side only, not compared: {kind}: {item}")
    different = sum(bool(comparison.differences) for comparison in comparisons.values())
    print(f"{len(comparisons) - different} of {len(comparisons)} cases are equal")
    return not different


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a commit, '.', or a folder of --record or --keep")
    parser.add_argument("new", nargs="?", help="a commit, '.', or such a folder")
    parser.add_argument("--assert-equal", action="store_true", help="exit code 1 where something differs")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="run the old side alone and leave what it writes here")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave what the sides write in old/ and new/ of it")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases to run, such as 'refine_*'")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time, of one thread each (default: 2)")
    parser.add_argument("--timeout", type=int, default=300, help="longest time per command in seconds (default: 300)")
    parser.add_argument("--own-seeds", action="store_true", help="keep each side's own rule of the seeds")
    args = parser.parse_args()
    if (args.new is None) == (args.record is None):
        parser.error("give either NEW or --record")
    for folder in filter(None, (args.record, args.keep)):
        if folder.exists() and any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
    return args


def main() -> int:
    """Runs the command; 1 where ``--assert-equal`` is given and results differ, or a recorded case failed."""
    args = parse()

    def side(name: str, folder: Path, old: Side | None = None) -> Side:
        if (Path(name) / RECORDING).is_file():
            recorded = Side.recorded(Path(name).resolve())
            if recorded.own_seeds != args.own_seeds:
                raise SystemExit(f"{name} was made {'with' if recorded.own_seeds else 'without'} --own-seeds: do so here too")
            return recorded
        return run_side(name, folder.resolve(), old, args)

    if args.record is not None:
        made = side(args.old, args.record)
        failed = {case.name: text for case in made.cases if (text := made.failure(case.name)) is not None}
        print("\n".join([*(f"{case}: {text}" for case, text in failed.items()), f"{args.record}: {len(made.cases)} cases"]))
        return int(bool(failed))
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        old = side(args.old, root / "old")
        new = side(args.new, root / "new", old)
        equal = report(old, new, args.only)
    return int(args.assert_equal and not equal)


if __name__ == "__main__":
    sys.exit(main())
