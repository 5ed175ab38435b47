"""The notebook of docs/ runs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


def test_the_notebook_refines_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel stands in a folder of its own, where the notebook writes
    notebook = nbformat.read(ROOT / "docs/refine_one_photograph.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('preset="fast"', 'preset="fast", steps=4')
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "astronaut.sga").is_file()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {output.output_type for output in outputs} == {"display_data"}, outputs  # no warning among them
    bar, picture = outputs
    assert "4/4" in bar.data["text/plain"] and "image/png" in picture.data
