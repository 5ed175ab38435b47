"""The attention model of Cheng et al. 2020 (arXiv 2001.01568), CompressAI's ``cheng2020-attn``."""

from __future__ import annotations

from compressai.models import Cheng2020Attention

from sga.codecs.cheng2020_anchor import Cheng2020AnchorCodec


class Cheng2020AttentionCodec(Cheng2020AnchorCodec):
    """Adapter of CompressAI's ``Cheng2020Attention``: the anchor with attention blocks in both transforms.

    Args:
        N: Channels of the transforms, of y and of z.
    """

    published_as = "cheng2020-attn"
    net: Cheng2020Attention
    architecture = Cheng2020Attention
    has_attention = True
