"""Adapters of CompressAI's models, and their checkpoints."""

from lightning_modules.codecs.base import Bits, Codec, Distortion, Latents, Prior, Quantise, Quantised
from lightning_modules.codecs.factorised_prior import FactorisedPriorCodec
from lightning_modules.codecs.mean_scale_hyperprior import MeanScaleHyperpriorCodec
from lightning_modules.codecs.scale_hyperprior import ScaleHyperpriorCodec

__all__ = [
    "Bits",
    "Codec",
    "Distortion",
    "FactorisedPriorCodec",
    "Latents",
    "MeanScaleHyperpriorCodec",
    "Prior",
    "Quantise",
    "Quantised",
    "ScaleHyperpriorCodec",
]
