"""LPIPS (Zhang et al. 2018, arXiv 1801.03924) of 8-bit images, where its package is installed."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

LEAST_SIDE = 31
"""Shortest side in pixels that LPIPS is defined for: AlexNet's strides leave nothing of a shorter one."""


@torch.no_grad()
def lpips_distance(image: Tensor, reconstruction: Tensor) -> float | None:
    """LPIPS (AlexNet, version 0.1) of two uint8 images ``[3, H, W]``: 0 for equal images, about 1 for unrelated ones.

    ``None`` where a side is under 31 pixels, where the package ``lpips`` is not installed, and, after a warning, where AlexNet's
    weights are not on this machine: nothing is downloaded in the middle of a job.
    """
    network = _network() if min(image.shape[-2:]) >= LEAST_SIDE else None
    if network is None:
        return None
    pair = (pixels[None].cpu().float() / 127.5 - 1 for pixels in (image, reconstruction))
    try:
        with torch.autocast("cpu", enabled=False):
            return float(network(*pair))
    except RuntimeError as error:  # such as an image too large for the memory
        return _unavailable(str(error))


@cache
def _network() -> nn.Module | None:
    """The network on the CPU, loaded once per process; ``None`` where it is not available."""
    if find_spec("lpips") is None:
        return None
    from torchvision.models import AlexNet_Weights  # type: ignore[import-untyped]

    weights = Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name
    if not weights.is_file():
        return _unavailable(f"{weights} is not there; python -c 'import lpips; lpips.LPIPS()' downloads it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package calls torchvision in an old way
            network: nn.Module = import_module("lpips").LPIPS(net="alex", verbose=False)
            return network.requires_grad_(False)
    except Exception as error:  # no failure of the package or of its weights may end a job
        return _unavailable(f"{weights}: {error}")


@cache
def _unavailable(reason: str) -> None:
    """Returns ``None`` after a warning, once per reason."""
    warnings.warn(f"LPIPS is n/a: {' '.join(reason.split())}", stacklevel=3)
