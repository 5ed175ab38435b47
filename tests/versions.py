"""The quick tests with the lowest or the newest versions that pyproject.toml allows: ``python tests/versions.py lowest``.

An environment of its own is made in a temporary folder (some 6 GB, minutes), or in ``--folder``, where it stays and is used again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
QUICK = ("tests/sga", "tests/configs", "tests/test_train.py", "tests/test_refine.py", "tests/test_file_commands.py")
SHOWN = ("torch", "torchvision", "pytorch-lightning", "compressai", "numpy", "pillow")


def lowest(dependencies: Sequence[str]) -> list[str]:
    """A pin of each requirement to its lower bound, the highest where it is named twice.

    Raises:
        ValueError: One has none.
    """
    bounds: dict[str, Version] = {}
    for text in dependencies:
        requirement = Requirement(text)
        found = [Version(spec.version) for spec in requirement.specifier if spec.operator == ">="]
        if len(found) != 1:
            raise ValueError(f"{text}: needs one lower bound (>=)")
        bounds[requirement.name] = max(found[0], bounds.get(requirement.name, found[0]))
    return [f"{name}=={bound}" for name, bound in bounds.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", choices=("lowest", "newest"))
    parser.add_argument("--python", default=sys.executable, help="Interpreter of the environment.")
    parser.add_argument("--folder", type=Path, help="Where the environment is, or is to be.")
    parser.add_argument("tests", nargs="*", default=QUICK, help="What pytest runs.")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as temporary:
        python = environment(options.folder or Path(temporary) / "venv", options.python, options.versions)
        listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
        found = dict(re.findall(r"^(\S+) +(\S+)", listed, re.MULTILINE))
        # Old versions warn of one another, and that is nobody's to mend.
        tests = subprocess.run([python, "-m", "pytest", "-o", "filterwarnings=", *options.tests], cwd=ROOT, check=False).returncode
    shown = ", ".join(f"{name} {found.get(name, '?')}" for name in SHOWN)
    print(f"{options.versions} versions ({shown}): {'passed' if tests == 0 else 'FAILED'}")
    return tests


def environment(folder: Path, interpreter: str, versions: str) -> Path:
    """Interpreter of an environment with the project and what it needs, made where it is not there."""
    python = folder / "bin/python"
    if (folder / "installed").is_file():
        return python
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = lowest([*project["dependencies"], *project["optional-dependencies"]["reports"]]) if versions == "lowest" else []
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    (folder / "constraints.txt").write_text("".join(f"{pin}\n" for pin in pins))
    install = [python, "-m", "pip", "install", "--quiet", "--upgrade", "--constraint", folder / "constraints.txt"]
    subprocess.run([*install, "--editable", f"{ROOT}[dev]"], check=True)
    (folder / "installed").touch()
    return python


if __name__ == "__main__":
    sys.exit(main())
