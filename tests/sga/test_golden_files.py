"""Files of every version and codec that stay for ever: whatever changes, they decode to the same symbols, everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._inductor.compile_fx import compile_fx as inductor

from benchmarks.decode_anywhere import CONDITIONS
from sga.bitstream import decode_image, decode_latents
from sga.checks import cpp_compiler
from sga.codecs import Codec
from sga.loading import LoadedCodec, load_codec
from sga.refinement.rounding import hard_round

GOLDEN = Path(__file__).parent.parent / "golden"
FILES = sorted(path.name for path in GOLDEN.glob("*.sga"))
NEAR = 1e-3
"""Means of y are floats, of which other machines find other last digits; a wrong symbol is off by 1."""


@cache
def codec_of(name: str) -> LoadedCodec:
    return load_codec(GOLDEN / f"{name.rsplit('_', 2)[0]}.safetensors")


def wrong_symbols(name: str) -> int:
    """How many symbols of a golden file decode otherwise than when it was written."""
    expected = load_file(GOLDEN / "y_hat.safetensors")[name.rsplit("_", 1)[0]]
    found = decode_latents(codec_of(name), (GOLDEN / name).read_bytes()).y_hat
    return int(((found - expected).abs() > NEAR).sum())


def test_there_is_a_file_of_every_version_and_codec() -> None:
    versions = {(type(codec_of(name).codec).__name__, name.removesuffix(".sga")[-1]) for name in FILES}
    for adapter in Codec.adapters():
        earlier = {"3"} if adapter.variable_rate else {"1", "2"}
        assert {version for codec, version in versions if codec == adapter.__name__} == {*earlier, "4"}
    assert all((GOLDEN / name).read_bytes()[3] == int(name.removesuffix(".sga")[-1]) for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_decodes_to_its_symbols(name: str) -> None:
    assert wrong_symbols(name) == 0
    assert decode_image(codec_of(name), (GOLDEN / name).read_bytes()).shape == (3, 60, 120)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("v4.sga")])
def test_the_memory_format_of_the_weights_changes_no_symbol(name: str) -> None:
    codec_of(name).codec.net.to(memory_format=torch.channels_last)
    try:
        assert wrong_symbols(name) == 0
    finally:
        codec_of(name).codec.net.to(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("condition", ["2 threads", "oneDNN AVX2", "all of them"])
def test_not_one_symbol_differs_under_other_instruction_sets_and_threads(condition: str) -> None:
    script = "from tests.sga.test_golden_files import FILES, wrong_symbols; print([wrong_symbols(name) for name in FILES])"
    environment = {**os.environ, **CONDITIONS[condition]}
    out = subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=GOLDEN.parent.parent, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout
    assert out.split("\n")[-2] == str([0] * len(FILES))


@pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["scale_hyperprior_plain_v4.sga", "variable_rate_scale_hyperprior_escapes_v4.sga"])
def test_a_compiled_model_decodes_to_the_same_symbols(name: str) -> None:
    loaded = load_codec(GOLDEN / f"{name.rsplit('_', 2)[0]}.safetensors")
    compiled: list[str] = []
    loaded.codec.net.h_s.compile(backend=lambda graph, inputs: compiled.append(str(graph)) or inductor(graph, inputs))
    expected = load_file(GOLDEN / "y_hat.safetensors")[name.rsplit("_", 1)[0]]
    assert torch.equal(decode_latents(loaded, (GOLDEN / name).read_bytes()).y_hat, expected)
    if not compiled:
        pytest.skip("this PyTorch compiles no copy of a module, and so nothing that decodes")


def test_files_of_images_of_a_batch_hold_its_symbols(any_codec: Codec) -> None:
    x = torch.rand(3, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = any_codec.quantise(any_codec.analyse(x, any_codec.gain_for(0.013)), hard_round, hard_round)
        for i in range(len(x)):
            gain = None if together.gain is None else float(together.gain[i])
            found = any_codec.decode_latents(any_codec.encode(together.image(i)), 64, 128, gain).y_hat
            assert ((found - together.y_hat[i]).abs() <= NEAR).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("v4.sga")])
def test_not_one_symbol_differs_on_cuda(name: str) -> None:
    codec_of(name).to("cuda")
    try:
        expected = load_file(GOLDEN / "y_hat.safetensors")[name.rsplit("_", 1)[0]]
        found = decode_latents(codec_of(name), (GOLDEN / name).read_bytes()).y_hat.cpu()
        assert ((found - expected).abs() <= NEAR).all()
    finally:
        codec_of(name).to("cpu")
