"""Adapters of CompressAI's models, and their checkpoints."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=FutureWarning)  # its import warns of what torch will drop
    warnings.filterwarnings("ignore", message="IProgress not found")  # and of a bar in notebooks, which nothing here draws
    import compressai.models  # noqa: F401

from sga.codecs.base import Codec, Round
from sga.codecs.cheng2020_anchor import Cheng2020AnchorCodec
from sga.codecs.cheng2020_attention import Cheng2020AttentionCodec
from sga.codecs.context_model import ContextModelCodec
from sga.codecs.factorised_prior import FactorisedPriorCodec
from sga.codecs.latents import Bits, Latents, Prior, Quantised
from sga.codecs.mean_scale_hyperprior import MeanScaleHyperpriorCodec
from sga.codecs.scale_hyperprior import ScaleHyperpriorCodec
from sga.codecs.variable_rate_scale_hyperprior import VariableRateScaleHyperpriorCodec

__all__ = [
    "Bits",
    "Cheng2020AnchorCodec",
    "Cheng2020AttentionCodec",
    "Codec",
    "ContextModelCodec",
    "FactorisedPriorCodec",
    "Latents",
    "MeanScaleHyperpriorCodec",
    "Prior",
    "Quantised",
    "Round",
    "ScaleHyperpriorCodec",
    "VariableRateScaleHyperpriorCodec",
]
