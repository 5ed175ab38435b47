"""The wheel, built without a network and installed elsewhere, from a folder that has a ``data`` and ``reports`` of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from torch import Tensor

from sga import __version__
from sga.images import read_image, write_image
from sga.loading import LoadedCodec
from sga.measures import psnr_db
from sga.photograph import encode_photograph

ROOT = Path(__file__).parents[2]
USERS_OWN = ("configs", "data", "lightning_modules", "reports")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(folder), str(ROOT))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and the dependencies from the present one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    found = folder / "bin" / "python"
    prefixes = {"base": str(folder), "platbase": str(folder)}
    (Path(sysconfig.get_path("purelib", "venv", prefixes)) / "present.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip(sys.executable, "--python", str(found), "install", "--no-deps", "--no-index", str(wheel))
    return found


@pytest.fixture
def there(tmp_path: Path, photograph: Tensor) -> Path:
    """A folder with a photograph, and with modules that no command of ours may import."""
    for name in USERS_OWN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('the {name} of the user')\n")
    (tmp_path / "refine.py").write_text("raise ImportError('the refine.py of the user')\n")
    write_image(photograph[:, 100:140, 200:250], tmp_path / "photo.png")
    return tmp_path


def pip(python: str, *arguments: str) -> None:
    run(Path(python), ROOT, "-m", "pip", "--disable-pip-version-check", *arguments)


def run(program: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("SLURM_")}
    command = [str(program), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_is_one_package_with_what_it_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"sga", f"sga_lightning-{__version__}.dist-info"}
    there = {name.removeprefix("sga/_home/") for name in names if name.startswith("sga/_home/")}
    for room in ("configs/refine/fast.yaml", "configs/train/length/short.yaml", "reports/page.html.jinja", "train.py"):
        assert room in there
    assert [name for name in there if name.endswith(".safetensors")] == ["checkpoints/variable_rate_scale_hyperprior.safetensors"]
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "sga").rglob("*.py")}
    assert code <= set(names) and "sga/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_command_encodes_and_decodes_from_any_folder(python: Path, there: Path, embedded: LoadedCodec) -> None:
    command = python.with_name("sga")
    assert run(command, there, "--version") == f"sga {__version__}\n"
    run(command, there, "encode", "photo.png", "-o", "photo.sga", "--preset", "fast", "--steps", "2")
    run(command, there, "decode", "photo.sga", "-o", "back.png")
    photo = read_image(there / "photo.png")
    assert psnr_db(photo, read_image(there / "back.png")) > psnr_db(photo, encode_photograph(embedded, photo)[0].image) - 1


def test_the_jobs_run_from_any_folder_on_two_ranks(python: Path, there: Path) -> None:
    (there / "photographs").mkdir()
    for name in ("one.png", "two.png"):
        (there / "photographs" / name).write_bytes((there / "photo.png").read_bytes())
    ranks = "--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--data.workers=1"
    job = "--config", "fast", "--data.root", "photographs", "--output", "run", "--model.steps", "2"
    run(python, there, "-m", "sga", "refine", *job, *ranks)
    assert (there / "run/bitstreams/one.bin").is_file() and (there / "run/bitstreams/two.bin").is_file()
    run(python.with_name("sga"), there, "report", "run", "-o", "report")
    assert (there / "report/index.html").is_file()


def test_the_package_refines_from_any_folder(python: Path, there: Path) -> None:
    run(
        *(python, there, "-c"),
        "import sga; result = sga.refine(sga.load(), 'photo.png', 'fast', steps=2); result.save('photo.sga');"
        "assert (sga.decode('photo.sga') == result.image).all(); assert '_home' in str(__import__('sga.files').files.home())",
    )
