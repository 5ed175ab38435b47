"""Published rate-distortion points of CompressAI's models.

They are means over the 24 Kodak images, from bitstreams: CompressAI's ``results/image/kodak/compressai-*_cuda.json``, with the
lambdas of its ``docs/source/zoo.rst`` (arXiv 2011.03029).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sga.codecs import Codec
from sga.codecs.zoo import LMBDAS
from sga.distortion import DistortionName
from sga.quality import Quality
from sga.rate_distortion import Objective

# Mean bpp, PSNR in dB and MS-SSIM of each quality, from quality 1.
_MEASURED: dict[tuple[str, DistortionName], tuple[tuple[float, float, float], ...]] = {
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
    ("mbt2018", "mse"): (
        (0.1105, 28.088, 0.9207),
        (0.1870, 29.645, 0.9432),
        (0.2877, 31.362, 0.9628),
        (0.4323, 33.086, 0.9752),
        (0.6388, 35.094, 0.9836),
        (0.8853, 36.989, 0.9892),
        (1.2004, 38.934, 0.9929),
        (1.5873, 40.639, 0.9953),
    ),
    ("mbt2018", "ms_ssim"): (
        (0.0975, 25.541, 0.9372),
        (0.1563, 26.723, 0.9585),
        (0.2342, 27.911, 0.9725),
        (0.3261, 28.959, 0.9810),
        (0.4566, 29.572, 0.9871),
        (0.6153, 30.494, 0.9913),
        (0.8501, 32.022, 0.9941),
        (1.1413, 33.498, 0.9960),
    ),
    ("cheng2020-anchor", "mse"): (
        (0.1196, 28.582, 0.9236),
        (0.1838, 29.969, 0.9465),
        (0.2710, 31.343, 0.9629),
        (0.4174, 33.390, 0.9758),
        (0.5945, 35.119, 0.9841),
        (0.8057, 36.704, 0.9893),
    ),
    ("cheng2020-anchor", "ms_ssim"): (
        (0.0981, 25.790, 0.9415),
        (0.1495, 26.652, 0.9602),
        (0.2262, 27.853, 0.9740),
        (0.3173, 28.809, 0.9822),
        (0.4488, 30.099, 0.9879),
        (0.5892, 30.934, 0.9917),
    ),
    ("cheng2020-attn", "mse"): (
        (0.1156, 28.431, 0.9239),
        (0.1745, 29.766, 0.9453),
        (0.2690, 31.321, 0.9635),
        (0.4270, 33.364, 0.9762),
        (0.5953, 34.949, 0.9838),
        (0.8059, 36.622, 0.9892),
    ),
    ("cheng2020-attn", "ms_ssim"): (
        (0.0919, 25.586, 0.9368),
        (0.1452, 26.691, 0.9580),
        (0.2150, 27.711, 0.9719),
        (0.3196, 29.007, 0.9824),
        (0.4298, 29.981, 0.9876),
        (0.5958, 31.454, 0.9914),
    ),
}

SIZES: dict[str, tuple[Mapping[str, int], ...]] = {
    **dict.fromkeys(
        ("FactorisedPriorCodec", "ScaleHyperpriorCodec", "MeanScaleHyperpriorCodec"),
        5 * ({"N": 128, "M": 192},) + 3 * ({"N": 192, "M": 320},),
    ),
    **dict.fromkeys(("Cheng2020AnchorCodec", "Cheng2020AttentionCodec"), 3 * ({"N": 128},) + 3 * ({"N": 192},)),
    "VariableRateScaleHyperpriorCodec": (),
}
"""Sizes of the model of each quality, from quality 1, by the class of the codec."""


def quality_settings(codec: str, name: str) -> dict[str, Any]:
    """Settings of a training at a quality of CompressAI's convention: ``lmbda``, ``distortion`` and the sizes of the codec.

    Args:
        codec: Name of the codec's class. One without published models has CompressAI's eight lambdas and keeps its own sizes.
        name: Name of the quality: ``mse_1`` to ``mse_8`` or ``ms_ssim_1`` to ``ms_ssim_8``; up to 6 for the codecs of Cheng et al.
            2020.

    Raises:
        ValueError: The codec has no such quality.
    """
    sizes = SIZES.get(codec, 8 * ({},))
    if not sizes:
        raise ValueError(f"{codec} has no quality {name}: one training is for all lambdas, and its file is all that it needs")
    for distortion, lmbdas in LMBDAS.items():
        for quality, (lmbda, size) in enumerate(zip(lmbdas, sizes, strict=False), start=1):
            if name == f"{distortion}_{quality}":
                known = {"codec": {"init_args": dict(size)}} if size else {}
                return {**known, "lmbda": lmbda, "distortion": distortion}
    raise ValueError(f"{codec} has no quality {name}: they are mse_1 to mse_{len(sizes)} and ms_ssim_1 to ms_ssim_{len(sizes)}")


@dataclass(frozen=True)
class PublishedPoint:
    """Result of a published model on Kodak.

    Attributes:
        architecture: CompressAI's name of the architecture.
        distortion: Distortion of the training.
        quality: Number of the quality, 1 to 8; 1 to 6 for the models of Cheng et al. 2020.
        lmbda: Lambda of the training.
        bpp: Mean bits per pixel of the files.
        psnr_db: Mean PSNR in dB.
        ms_ssim: Mean MS-SSIM in [0, 1].
    """

    architecture: str
    distortion: DistortionName
    quality: int
    lmbda: float
    bpp: float
    psnr_db: float
    ms_ssim: float

    @property
    def means(self) -> Quality:
        """The means as metrics."""
        return Quality(self.bpp, self.psnr_db, self.ms_ssim)

    @property
    def rd_loss(self) -> float:
        """R-D loss of the mean bpp and the mean PSNR (or MS-SSIM), to compare only with an R-D loss of such means.

        The MSE that belongs to a mean PSNR is below the mean of the MSEs, so that the mean of the R-D losses of single images is a
        few per cent above this number, even for the published model itself.
        """
        loss = self.means.loss(Objective(self.lmbda, self.distortion))
        assert loss is not None
        return loss


STANDS_FOR = {"bmshj2018-hyperprior-vbr": "bmshj2018-hyperprior"}
"""Architectures without points of their own here, and whose they are held against: the eight models that one stands for."""

POINTS = tuple(
    PublishedPoint(architecture, distortion, quality, lmbda, *measured)
    for (architecture, distortion), points in _MEASURED.items()
    for quality, (lmbda, measured) in enumerate(zip(LMBDAS[distortion], points, strict=False), start=1)
)


def published_points(architecture: str, distortion: DistortionName) -> list[PublishedPoint]:
    """The points of one curve by their quality; empty where none was published."""
    return [point for point in POINTS if (point.architecture, point.distortion) == (architecture, distortion)]


KODAK = frozenset(f"kodim{number:02d}" for number in range(1, 25))
"""Names of the images that a published point is the mean over."""
KODAK_PIXELS = 768 * 512


def of_kodak(pixels: Mapping[str, int]) -> bool:
    """Whether all images, numbers of pixels by name, are Kodak's, as far as these say; not where there is none."""
    return bool(pixels) and set(pixels) <= KODAK and set(pixels.values()) == {KODAK_PIXELS}


def whole_kodak(pixels: Mapping[str, int]) -> bool:
    """As :func:`of_kodak`, and all 24 are there: only their means compare with a published point."""
    return of_kodak(pixels) and len(pixels) == len(KODAK)


def published_point(codec: Codec, objective: Objective) -> PublishedPoint | None:
    """The published point of a codec's architecture trained for an objective; ``None`` where none was published."""
    architecture = STANDS_FOR.get(str(codec.published_as), codec.published_as)
    for point in published_points(str(architecture), objective.distortion):
        if math.isclose(point.lmbda, float(objective.lmbda), rel_tol=1e-6):
            return point
    return None
