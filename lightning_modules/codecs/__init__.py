"""Adapters of CompressAI's models, and their checkpoints."""

from lightning_modules.codecs.base import Bits, Codec, Latents, Prior, Quantise, Quantised
from lightning_modules.codecs.scale_hyperprior import ScaleHyperpriorCodec

__all__ = ["Bits", "Codec", "Latents", "Prior", "Quantise", "Quantised", "ScaleHyperpriorCodec"]
