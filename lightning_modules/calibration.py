"""The gain of each lambda of a trained codec of variable rate: the one whose hard-rounded loss is least.

``python -m lightning_modules.calibration MODEL --data DIR -o CALIBRATED`` reads any checkpoint of such a codec and writes one to
ship.

Training holds the gains fixed: noise in place of rounding makes small symbols look dearer than they are, so that gains that follow
its gradient end up a fourth too large at low rates, which costs 5 % of the loss there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import lightning_modules.startup  # noqa: F401  (before the project's other modules)
from data.images import find_images, pad, read_image, to_float
from lightning_modules.cli import errors_in_one_line
from lightning_modules.codecs import VariableRateScaleHyperpriorCodec
from lightning_modules.codecs.checkpoint import load_codec
from lightning_modules.codecs.export import export_safetensors
from lightning_modules.rate_distortion import Objective, TruePixels, rate_distortion
from lightning_modules.rounding import hard_round

GRID = 25
"""Gains that are tried."""

BEYOND = 2.0
"""By what factor the grid goes beyond the gains of the codec at both ends."""


@torch.no_grad()
def calibrated_gains(codec: VariableRateScaleHyperpriorCodec, images: Iterable[Tensor]) -> Tensor:
    """The best gain of each of the codec's levels, ``[levels]``, by the mean R-D loss of images.

    Args:
        codec: Trained; it is not changed.
        images: fp32 ``[3, H, W]`` in [0, 1].
    """
    fast = codec.frozen(torch.float32)
    own = codec.net.Gain.abs()
    grid = torch.exp(torch.linspace(float(own.min().log()) - np.log(BEYOND), float(own.max().log()) + np.log(BEYOND), GRID))
    points = []  # of each image [GRID, 2]: bits a pixel and squared error
    for image in images:
        x, size = pad(image, codec.stride)[None].to(codec.device), (image.shape[-2], image.shape[-1])
        true = TruePixels.of(x, [size])
        y, rows = fast.net.g_a(x), []
        for gain in grid.to(x).view(-1, 1, 1, 1, 1):
            quantised = fast.quantise(fast.latents_of(y * gain, gain), hard_round)
            x_hat = fast.synthesise(fast.dequantise(quantised)).clamp(0, 1)
            found = rate_distortion(x, x_hat, fast.bits(quantised), Objective(0.0), true)
            rows.append([float(found.bpp), float(found.mse)])
        points.append(rows)
    bpp, mse = np.mean(points, 0).T
    return torch.tensor([_least(grid.log().numpy(), Objective(lmbda).weight * mse + bpp) for lmbda in codec.net.lmbda])


def _least(log_gain: np.ndarray, loss: np.ndarray) -> float:  # type: ignore[type-arg]
    """The gain at the bottom of the parabola through the least point and its neighbours."""
    i = int(np.clip(np.argmin(loss), 1, len(loss) - 2))
    a, b, _ = np.polyfit(log_gain[i - 1 : i + 2], loss[i - 1 : i + 2], 2)
    return float(np.exp(np.clip(-b / (2 * a), log_gain[i - 1], log_gain[i + 1])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Checkpoint of a codec of variable rate.")
    parser.add_argument("--data", type=Path, required=True, help="Folder of photographs, of which none was trained on.")
    parser.add_argument("--limit", type=int, default=16, help="So many of them, spread over all.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="A .safetensors file.")
    options = parser.parse_args()
    loaded = load_codec(options.model)
    codec = loaded.codec
    if not isinstance(codec, VariableRateScaleHyperpriorCodec):
        raise ValueError(f"{options.model}: not a codec of variable rate")
    paths = find_images(options.data)
    paths = paths[:: max(1, len(paths) // options.limit)][: options.limit]
    gains = calibrated_gains(codec, (to_float(read_image(path)) for path in paths))
    for lmbda, before, after in zip(codec.net.lmbda, codec.net.Gain.tolist(), gains.tolist(), strict=True):
        print(f"lambda {lmbda:g}: gain {before:.4f} -> {after:.4f}")
    codec.net.Gain.copy_(gains)
    export_safetensors(codec, options.output, {"lmbda": str(loaded.lmbda or 0.013), "distortion": loaded.distortion})


if __name__ == "__main__":
    with errors_in_one_line():
        main()
