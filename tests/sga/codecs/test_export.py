from __future__ import annotations

from pathlib import Path

import torch
from compressai.utils.eval_model.__main__ import load_checkpoint

from sga.codecs import ScaleHyperpriorCodec
from sga.codecs.checkpoint import model_hash
from sga.codecs.export import export_compressai, export_safetensors
from sga.loading import load_codec
from sga.refinement.rounding import hard_round
from tests.conftest import random_image


def test_shipped_form_keeps_model_and_tables(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    export_safetensors(small_codec, path, {"lmbda": "0.013"})
    loaded = load_codec(path)
    assert loaded.lmbda == 0.013
    assert loaded.model_hash == model_hash(small_codec)
    with torch.no_grad():
        loaded.codec.net.g_s[0].weight[0, 0, 0, 0] += 1e-3
    assert model_hash(loaded.codec) != loaded.model_hash


def test_exported_checkpoint_is_one_of_compressai(small_codec: ScaleHyperpriorCodec, tmp_path: Path) -> None:
    path = tmp_path / "small.pth.tar"
    export_compressai(small_codec, path)
    net = load_checkpoint("bmshj2018-hyperprior", True, str(path))
    x = random_image()
    out = net.compress(x)
    decoded = net.decompress(out["strings"], out["shape"])["x_hat"]
    quantised = small_codec.quantise(small_codec.analyse(x), hard_round, hard_round)
    torch.testing.assert_close(decoded, small_codec.synthesise(quantised.y_hat).clamp(0, 1))
