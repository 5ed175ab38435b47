from __future__ import annotations

import pytest
from torch import nn

from lightning_modules.compilation import compile_transforms
from sga.codecs import ScaleHyperpriorCodec


def test_without_a_compiler_a_training_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def note(module: nn.Module) -> None:
        compiled.append(module)

    monkeypatch.setattr(nn.Module, "compile", note)
    codec = ScaleHyperpriorCodec(N=8, M=12)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler is found"):
        compile_transforms(codec)
    assert not compiled
    monkeypatch.setenv("CXX", "sh")
    compile_transforms(codec)
    assert compiled == codec.transforms
