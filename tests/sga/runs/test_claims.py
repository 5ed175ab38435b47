from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sga.files import TEMPORARY
from sga.runs.claims import LOCK, SILENT, Claims, claimed, holder, sweep_job
from sga.runs.folder import IMAGES

TAKE = """
import os, sys
from pathlib import Path
from sga.runs.claims import Claims
print(Claims(Path(sys.argv[1])).take("a"), flush=True)
{end}
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / IMAGES).mkdir()
    return tmp_path


def other_process(output: Path, end: str) -> subprocess.Popen[str]:
    """A process that has taken image ``a``, or has not, and then does ``end``."""
    command = [sys.executable, "-c", TAKE.format(end=end), str(output)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_an_image_is_one_process_s_until_it_gives_it_back(output: Path) -> None:
    first, second = Claims(output), Claims(output)
    assert first.take("a") and first.take("a") and second.take("b")
    assert not second.take("a") and holder(output, "a") is not None and claimed(output) == ["a", "b"]
    second.release("a")  # not its own
    assert not second.take("a")
    first.release("a")
    assert second.take("a")
    first.close()
    second.close()
    assert list(output.rglob("*")) == [output / IMAGES]


def test_the_claim_of_a_killed_process_is_taken_over_at_once(output: Path) -> None:
    claims = Claims(output)
    with other_process(output, "sys.stdin.read()") as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not claims.take("a")
        other.kill()
        other.wait()
        assert holder(output, "a") is None and claims.take("a")
    claims.close()
    assert list(output.rglob("*")) == [output / IMAGES]


def test_the_claim_of_a_process_of_another_machine_holds_while_it_is_renewed(output: Path) -> None:
    elsewhere = output / f"{TEMPORARY}00000000-1-x"
    elsewhere.touch()
    (output / IMAGES / f"a{LOCK}").symlink_to(f"../{elsewhere.name}")
    claims = Claims(output)
    assert not claims.take("a")
    sweep_job(output)
    assert claimed(output) == ["a"] and elsewhere.exists()
    now = elsewhere.stat().st_mtime
    os.utime(elsewhere, (now, now - SILENT - 10))
    assert claims.take("a")
    claims.close()


def test_where_no_link_can_be_made_images_are_refined_all_the_same(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "symlink", no_links)
    claims = Claims(output)
    assert claims.take("a") and claims.take("x" * 300)
    claims.close()
