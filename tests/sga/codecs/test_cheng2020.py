from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sga.codecs import Cheng2020AnchorCodec, Cheng2020AttentionCodec, Codec, ContextModelCodec
from sga.codecs.checkpoint import CheckpointError, load_weights
from sga.codecs.export import export_compressai
from tests.conftest import random_codec


@pytest.mark.parametrize("adapter", [Cheng2020AnchorCodec, Cheng2020AttentionCodec])
def test_anchor_and_attention_start_from_each_other(adapter: type[Codec], tmp_path: Path) -> None:
    (other,) = {Cheng2020AnchorCodec, Cheng2020AttentionCodec} - {adapter}
    export_compressai(random_codec(other), tmp_path / "other.pth")
    codec = adapter(N=8)  # type: ignore[call-arg]
    new = load_weights(codec, tmp_path / "other.pth")
    blocks = {".".join(name.split(".")[:2]) for name in new}
    assert blocks == ({"g_a.3", "g_a.8", "g_s.0", "g_s.5"} if adapter is Cheng2020AttentionCodec else set())
    # Without its attention blocks, one is the other.
    theirs = random_codec(other).net
    for name in ("g_a", "g_s"):
        mine, its = (
            [block for block in getattr(net, name) if type(block).__name__ != "AttentionBlock"] for net in (codec.net, theirs)
        )
        x = torch.rand(1, 3 if name == "g_a" else 8, 64, 64)
        torch.testing.assert_close(nn.Sequential(*mine)(x), nn.Sequential(*its)(x))
    assert torch.equal(codec.net.entropy_parameters[0].weight, theirs.entropy_parameters[0].weight)
    export_compressai(random_codec(ContextModelCodec), tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        load_weights(codec, tmp_path / "foreign.pth")
