"""Published rate-distortion points of CompressAI's models, to aim at and to compare with.

Means over the 24 Kodak images, from bitstreams: CompressAI's ``results/image/kodak/compressai-*_cuda.json``, and the lambdas of its
``docs/source/zoo.rst`` (arXiv 2011.03029).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_modules.codecs import Codec, Distortion
from lightning_modules.codecs.checkpoint import LMBDAS
from lightning_modules.metrics import rd_loss
from lightning_modules.rate_distortion import Objective

ARCHITECTURES = {
    "FactorizedPrior": "bmshj2018-factorized",
    "ScaleHyperprior": "bmshj2018-hyperprior",
    "MeanScaleHyperprior": "mbt2018-mean",
}
"""CompressAI's name of an architecture, by the class of its model."""

# bpp, PSNR in dB and MS-SSIM of each quality.
_MEASURED: dict[tuple[str, Distortion], tuple[tuple[float, float, float], ...]] = {
    ("bmshj2018-factorized", "mse"): (
        (0.1226, 26.909, 0.9100),
        (0.1885, 28.218, 0.9360),
        (0.2878, 29.617, 0.9555),
        (0.4404, 31.277, 0.9704),
        (0.6481, 32.956, 0.9806),
        (0.9670, 35.381, 0.9879),
        (1.3512, 37.397, 0.9922),
        (1.8333, 39.621, 0.9951),
    ),
    ("bmshj2018-factorized", "ms_ssim"): (
        (0.1163, 25.299, 0.9296),
        (0.1728, 26.301, 0.9503),
        (0.2522, 27.215, 0.9651),
        (0.3593, 28.166, 0.9770),
        (0.4981, 29.054, 0.9845),
        (0.6687, 30.330, 0.9895),
        (0.8868, 31.434, 0.9928),
        (1.1781, 32.777, 0.9951),
    ),
    ("bmshj2018-hyperprior", "mse"): (
        (0.1313, 27.582, 0.9174),
        (0.2089, 29.197, 0.9421),
        (0.3199, 30.972, 0.9611),
        (0.4784, 32.838, 0.9749),
        (0.6687, 34.526, 0.9836),
        (0.9388, 36.743, 0.9893),
        (1.2592, 38.584, 0.9929),
        (1.6602, 40.557, 0.9955),
    ),
    ("bmshj2018-hyperprior", "ms_ssim"): (
        (0.1094, 24.868, 0.9347),
        (0.1670, 25.986, 0.9551),
        (0.2481, 27.072, 0.9707),
        (0.3495, 28.114, 0.9806),
        (0.4735, 28.992, 0.9866),
        (0.6379, 30.220, 0.9907),
        (0.8588, 31.598, 0.9938),
        (1.1598, 33.175, 0.9959),
    ),
    ("mbt2018-mean", "mse"): (
        (0.1239, 27.699, 0.9178),
        (0.1980, 29.359, 0.9431),
        (0.3072, 31.129, 0.9615),
        (0.4606, 32.951, 0.9752),
        (0.6617, 34.968, 0.9836),
        (0.9144, 36.911, 0.9893),
        (1.2342, 38.838, 0.9930),
        (1.6191, 40.633, 0.9953),
    ),
    ("mbt2018-mean", "ms_ssim"): (
        (0.1017, 25.441, 0.9338),
        (0.1616, 26.568, 0.9570),
        (0.2419, 27.566, 0.9717),
        (0.3423, 28.503, 0.9808),
        (0.4638, 29.518, 0.9866),
        (0.6381, 30.852, 0.9912),
        (0.8619, 32.242, 0.9941),
        (1.1587, 33.828, 0.9961),
    ),
}


@dataclass(frozen=True)
class PublishedPoint:
    """What a published model reaches on Kodak.

    Attributes:
        architecture: CompressAI's name.
        distortion: What the model was trained on.
        quality: 1 to 8.
        lmbda: Of its training.
        bpp: Mean bits a pixel of the files.
        psnr_db: Mean PSNR in dB.
        ms_ssim: Mean MS-SSIM.
    """

    architecture: str
    distortion: Distortion
    quality: int
    lmbda: float
    bpp: float
    psnr_db: float
    ms_ssim: float

    @property
    def rd_loss(self) -> float:
        """The Lagrangian of the mean bpp and the mean PSNR (or MS-SSIM): to be compared with one of such means alone.

        The MSE of a mean PSNR is below the mean of the MSEs, so that the mean over images of the R-D losses lies some percent above
        this number, even for the published model itself.
        """
        loss = rd_loss(Objective(self.lmbda, self.distortion), self.bpp, self.psnr_db, self.ms_ssim)
        assert loss is not None
        return loss


POINTS = tuple(
    PublishedPoint(architecture, distortion, quality, lmbda, *measured)
    for (architecture, distortion), points in _MEASURED.items()
    for quality, (lmbda, measured) in enumerate(zip(LMBDAS[distortion], points, strict=True), start=1)
)


def published_point(codec: Codec, objective: Objective) -> PublishedPoint | None:
    """The published point of a codec's architecture trained for an objective; ``None`` where none was published."""
    # A subclass is another architecture: the name must be the class's own.
    architecture = ARCHITECTURES.get(type(codec.net).__name__)
    for point in POINTS:
        same = (point.architecture, point.distortion) == (architecture, objective.distortion)
        if same and math.isclose(point.lmbda, float(objective.lmbda), rel_tol=1e-6):
            return point
    return None
