"""Adapters of CompressAI's models, and their checkpoints."""

from lightning_modules.codecs.base import Bits, Codec, Distortion, Latents, Prior, Quantise, Quantised
from lightning_modules.codecs.cheng2020_anchor import Cheng2020AnchorCodec
from lightning_modules.codecs.cheng2020_attention import Cheng2020AttentionCodec
from lightning_modules.codecs.context_model import ContextModelCodec
from lightning_modules.codecs.factorised_prior import FactorisedPriorCodec
from lightning_modules.codecs.mean_scale_hyperprior import MeanScaleHyperpriorCodec
from lightning_modules.codecs.scale_hyperprior import ScaleHyperpriorCodec
from lightning_modules.codecs.variable_rate_scale_hyperprior import VariableRateScaleHyperpriorCodec

__all__ = [
    "Bits",
    "Cheng2020AnchorCodec",
    "Cheng2020AttentionCodec",
    "Codec",
    "ContextModelCodec",
    "Distortion",
    "FactorisedPriorCodec",
    "Latents",
    "MeanScaleHyperpriorCodec",
    "Prior",
    "Quantise",
    "Quantised",
    "ScaleHyperpriorCodec",
    "VariableRateScaleHyperpriorCodec",
]
