"""The examples of docs/extending.md; that of a metric is run by tests/sga/test_quality.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sga
from data.samples import sample_paths
from sga.images import read_image, write_image

ROOT = Path(__file__).parents[1]


def examples(title: str) -> str:
    """The Python of a section."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", (ROOT / "docs/extending.md").read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))


def crop(height: int, width: int) -> Tensor:
    """Part of a photograph, uint8 ``[3, height, width]``."""
    return read_image(sample_paths()[0])[:, 60 : 60 + height, 150 : 150 + width]


def environment() -> dict[str, str]:
    """For a process that stands in another folder and imports this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), "."])}


def test_the_method_refines_in_python() -> None:
    scope: dict[str, object] = {}
    exec(compile(examples("A method"), "extending.md", "exec"), scope)
    settings = scope["settings"]
    rounding = settings.rounding  # type: ignore[attr-defined]
    assert rounding.name == "gaussian"
    # The exponent of a Gaussian of width 0.4.
    assert float(rounding.log_weight(torch.tensor(0.2))) == pytest.approx(-0.125)
    result = sga.refine(sga.load(), crop(64, 96), settings, progress=False)  # type: ignore[arg-type]
    objective = result.objective
    assert result.best_step > 0 and result.quality.loss(objective) < result.base.quality.loss(objective)  # type: ignore[operator]


def test_the_method_is_found_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "my_methods.py").write_text(examples("A method").split("from dataclasses")[0])
    write_image(crop(64, 64), tmp_path / "a.png")
    options = ["--model.rounding", "my_methods.GaussianRounding", "--model.rounding.s", "0.5", "--model.steps", "2"]
    command = [sys.executable, ROOT / "refine.py", "--config", "sga", *options, "--data.root", "a.png", "--output", "run"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, timeout=300)
    assert ",gaussian,2," in (tmp_path / "run/results.csv").read_text()


USE_OF_THE_CODEC = """
import sys
from pathlib import Path

import torch

import sga

torch.manual_seed(0)
net = FactorizedPriorReLU(32, 48)
torch.save({"state_dict": net.state_dict(), "lmbda": 0.01}, "model.pth.tar")
loaded = sga.load("model.pth.tar")
assert type(loaded.codec) is FactorisedPriorReluCodec, type(loaded.codec)
assert loaded.codec.published_as == "bmshj2018-factorized-relu"
image = torch.arange(3 * 40 * 56).remainder(251).to(torch.uint8).view(3, 40, 56)
result = sga.refine(loaded, image, "sga", steps=2, progress=False)
assert torch.equal(sga.decode(result.file, loaded), result.image)
print("decodes")
"""


def test_the_codec_loads_codes_and_decodes(tmp_path: Path) -> None:
    # In a process of its own: an adapter that was once defined is known to every test behind it.
    command = [sys.executable, "-c", examples("A codec") + USE_OF_THE_CODEC]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "decodes\n"), done.stderr
