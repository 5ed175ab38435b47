"""Damaged and forged files of every codec: benchmarks/fuzz_files.py makes more of them."""

from __future__ import annotations

import os
import random

import pytest
import torch

from benchmarks.fuzz_files import Seed, damage, earlier_version, forge, fuzz, outcome, seed_of, tiny_codec
from sga.bitstream import Bitstream
from sga.codecs import Codec
from sga.loading import LoadedCodec


@pytest.fixture(params=list(Codec.adapters()), ids=lambda adapter: adapter.__name__)
def seed(request: pytest.FixtureRequest) -> Seed:
    return seed_of(tiny_codec(request.param))


def test_damaged_files_are_refused(seed: Seed) -> None:
    draw = random.Random(0)
    counted, failed = fuzz(seed, [damage(seed.file, draw) for _ in range(250)])
    assert not failed and counted["refused"] >= 245  # a damage may put back what was there


def test_forged_files_end_in_the_same_picture_or_an_error_in_every_process(seed: Seed) -> None:
    draw = random.Random(0)
    counted, failed = fuzz(seed, [forge(seed, draw) for _ in range(250)])
    assert not failed and counted["refused"] >= 50 and counted["decoded"] >= 5


def test_an_earlier_version_of_a_file_decodes_to_the_same_picture(seed: Seed) -> None:
    seed = seed_of(seed.loaded, spread=1)
    earlier = earlier_version(Bitstream.from_bytes(seed.file))
    assert earlier[3] in (2, 3) and outcome(seed.loaded, earlier) == outcome(seed.loaded, seed.file)


def test_forged_files_of_the_embedded_model(embedded: LoadedCodec) -> None:
    seed, draw = seed_of(embedded), random.Random(0)
    counted, failed = fuzz(seed, [forge(seed, draw) for _ in range(60)])
    assert not failed and counted["refused"] >= 20


def test_a_process_that_dies_is_told_with_its_file(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(loaded: LoadedCodec, data: bytes) -> torch.Tensor:
        if data == b"deadly":
            os._exit(11)
        raise KeyError("not ours")

    monkeypatch.setattr("benchmarks.fuzz_files.decode_image", dies)
    _, failed = fuzz(seed, [b"a", b"deadly", b"b"])
    assert [data for data, _ in failed] == [b"a", b"deadly", b"b"]
    assert "died" in failed[1][1] and "KeyError" in failed[0][1] and "KeyError" in failed[2][1]
