from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from sga import doctor
from sga.commands import main

Usage = namedtuple("Usage", "total used free")


def test_a_sound_installation_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.CHECKS) and all(line.startswith(("ok    ", "note  ")) for line in lines)
    assert "torch " in lines[1] and "bytes" in lines[-1]


def test_what_is_wrong_is_said_with_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**8, 10**8 - 10**6, 10**6))
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch>=999", "missing-package>=1", 'pytest; extra == "dev"'])
    monkeypatch.setattr(doctor, "cpp_compiler", lambda: None)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "mend  packages: torch" in out and "missing-package is missing (wanted: >=1)" in out and "pytest" not in out
    assert "mend  disk: 0.0 GB are free here: make room" in out and "note  shared memory: 100 MB" in out
    assert "note  C++ compiler: none: trainings are not compiled" in out


def test_a_check_that_fails_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def device() -> doctor.Finding:
        raise RuntimeError("no driver")

    monkeypatch.setattr(doctor, "CHECKS", (device, doctor.python))
    assert doctor.main([]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "mend  device: RuntimeError: no driver"
