"""The mean-scale hyperprior of Minnen et al. 2018 (arXiv 1809.02736, without its context model), CompressAI's ``mbt2018-mean``."""

from __future__ import annotations

from compressai.models import MeanScaleHyperprior
from torch import Tensor

from sga.codecs.latents import Prior
from sga.codecs.scale_hyperprior import ScaleHyperpriorCodec


class MeanScaleHyperpriorCodec(ScaleHyperpriorCodec):
    """Adapter of CompressAI's ``MeanScaleHyperprior``, the base model of the SGA papers: y is rounded about predicted means.

    ::

        y = g_a(x)   z = h_a(y)   z_hat = Q(z)   sigma, mu = h_s(z_hat)   y_hat = Q(y - mu) + mu   x_hat = g_s(y_hat)

    Args:
        N: Channels of the transforms and of z.
        M: Channels of y.
    """

    published_as = "mbt2018-mean"
    net: MeanScaleHyperprior
    architecture = MeanScaleHyperprior
    predicted = 2

    def hyper_input(self, y: Tensor) -> Tensor:
        return y

    def prior(self, predicted: Tensor) -> Prior:
        scales, means = predicted.chunk(2, 1)
        return Prior(scales, means)
