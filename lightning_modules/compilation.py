"""Compiled transforms, where this machine can compile."""

from __future__ import annotations

from pytorch_lightning.utilities import rank_zero_warn

from sga.checks import cpp_compiler
from sga.codecs import Codec


def compile_transforms(codec: Codec) -> None:
    """Lets inductor compile the transforms at their first use; without a C++ compiler, one line says that it does not."""
    if cpp_compiler() is None:
        rank_zero_warn("compile: no C++ compiler is found, so that the transforms are not compiled; install g++, or set CXX")
        return
    for transform in codec.transforms:
        transform.compile()
