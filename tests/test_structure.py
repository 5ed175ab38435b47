"""The design in terms of imports: which module may import which, and how long files and functions may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sga", "lightning_modules", "data", "reports", "benchmarks")
COMMANDS = ("codec", "refine", "train", "study")
ROOMS = {*PACKAGES, *COMMANDS}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60

FORBIDDEN: dict[str, set[str]] = {
    "sga": ROOMS - {"sga"},
    "sga.refinement": {f"sga.{name}" for name in ("bitstream", "coding", "photograph", "reach_target", "runs", "files")},
    "sga.refinement.rounding": {"sga.codecs"},
    "sga.codecs": {
        f"sga.{name}" for name in ("quality", "refinement", "bitstream", "coding", "photograph", "reach_target", "runs")
    },
    "data": ROOMS - {"data", "sga"},
    "reports": {"lightning_modules", "benchmarks", *COMMANDS},
    "lightning_modules": {"reports", "benchmarks", *COMMANDS},
}
"""What a module and those below it import at no place, not even in a function."""

ALLOWED = {("sga.refinement.presets", "sga.files")}
"""A preset is a file of the project, and ``sga.files`` says where those lie."""

LONG_FUNCTIONS: set[str] = set()
"""Known and to be shortened; an entry that is short by now fails too."""

LONG_FILES: set[str] = set()


def sources() -> list[Path]:
    """The project's own files, without tests."""
    inside = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted([*(ROOT / f"{command}.py" for command in COMMANDS), *inside])


@lru_cache
def trees() -> dict[str, ast.Module]:
    """Module names and what their files say."""
    found = {}
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def below(module: str, above: str) -> bool:
    """Whether it is ``above`` or inside it."""
    return module == above or module.startswith(f"{above}.")


def with_packages(module: str) -> list[str]:
    """``a.b.c``, ``a.b`` and ``a``: all that importing the first runs."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Names of modules; ``from a import b`` is of ``a.b`` where that is a module of the project."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in trees() else node.module for name in inner}
    return found


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: no function, and nothing for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_module_level(child)


def test_the_modules_of_the_design_are_seen() -> None:
    """Or the tests below would look at nothing."""
    assert {"sga.photograph", "sga.codecs", "sga.refinement.refiner", "data.crops", "reports.page", "codec"} <= trees().keys()
    assert imported(ast.walk(trees()["sga.photograph"])) >= {"sga.coding", "sga.refinement.refiner", "torch"}


@pytest.mark.parametrize("above", FORBIDDEN)
def test_no_arrow_points_up(above: str) -> None:
    arrows = {(module, name) for module, tree in trees().items() if below(module, above) for name in imported(ast.walk(tree))}
    wrong = {(module, name) for module, name in arrows if any(below(name, forbidden) for forbidden in FORBIDDEN[above])}
    assert not wrong - ALLOWED


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {}
    for module, tree in trees().items():
        runs = {name for target in imported(at_module_level(tree)) for name in with_packages(target)}
        graph[module] = (runs & trees().keys()) - set(with_packages(module))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"{' -> '.join(error.args[1])}")


def test_no_file_of_the_core_names_lightning() -> None:
    for module, tree in trees().items():
        if below(module, "sga"):
            assert not {name for name in imported(ast.walk(tree)) if "lightning" in name}, module


@pytest.mark.parametrize("module", ["sga", "sga.photograph", "sga.refinement.presets", "sga.codecs.export", "codec"])
def test_the_core_runs_without_lightning(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in sys.modules if name.startswith(('lightning', 'pytorch_lightning'))))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == []


def test_functions_are_short() -> None:
    long = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long.add(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == LONG_FUNCTIONS


def test_files_are_short() -> None:
    assert {str(path.relative_to(ROOT)) for path in sources() if len(path.read_text().splitlines()) > MOST_LINES} == LONG_FILES
