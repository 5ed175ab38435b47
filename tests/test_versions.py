from __future__ import annotations

import tomllib

import pytest

from tests.versions import ROOT, lowest


def test_every_dependency_has_a_lower_bound_that_can_be_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(pin.split("==") for pin in lowest([*project["dependencies"], *project["optional-dependencies"]["reports"]]))
    assert pins["torch"] == "2.11" and pins["pillow"] == "11.3" and len(pins) >= len(project["dependencies"])


def test_the_highest_of_two_lower_bounds_counts() -> None:
    assert lowest(["a[x]>=1.2,<2", "b>=9", "b>=10.1"]) == ["a==1.2", "b==10.1"]
    with pytest.raises(ValueError, match="a<2: needs one lower bound"):
        lowest(["a<2"])
