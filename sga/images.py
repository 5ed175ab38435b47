"""Image files to tensors and back."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sga import pillow
from sga.files import replacing

ImageLike = str | PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
"""Types that the package accepts as a photograph; see :func:`to_image`."""

ACCEPTED = "give a path, a PIL image, a uint8 array [H, W, 3] or [H, W], or a uint8 tensor [3, H, W]"
"""End of the error messages of :func:`to_image`."""

ImageError = pillow.ImageError
"""Error for a source that cannot be read as an image."""

LOSSLESS = (".png", ".bmp", ".ppm", ".tif", ".tiff")
"""Endings of the formats that are written without loss."""


def to_image(source: ImageLike) -> Tensor:
    """The picture in RGB as a viewer shows it, uint8 ``[3, H, W]`` on the CPU.

    Args:
        source: Path of an image file; a PIL image, shown as a file is; a uint8 array ``[H, W, 3]`` in RGB, or ``[H, W]``
            in gray; a uint8 tensor ``[3, H, W]`` in RGB, on any device.

    Raises:
        ImageError: The source is none of these, or the file is missing or damaged.
    """
    if isinstance(source, (str, PathLike)):
        return read_image(Path(source))
    if isinstance(source, Image.Image):
        with pillow.reading("the PIL image"):  # its file is read now
            return _to_tensor(pillow.rgb(source))
    if not isinstance(source, (np.ndarray, Tensor)):
        raise ImageError(f"no image: {type(source).__name__}; {ACCEPTED}")
    kind, shape = type(source).__name__, list(source.shape)
    if source.dtype not in (np.uint8, torch.uint8):
        unknown = "whose white may be 1 or 255: scale to 0 ... 255 and round"
        raise ImageError(f"no image: {kind} of {source.dtype}, {unknown}; {ACCEPTED}")
    fits = shape[:1] == [3] and len(shape) == 3 if isinstance(source, Tensor) else len(shape) == 2 or shape[2:] == [3]
    if not fits or 0 in shape:
        raise ImageError(f"no image: {kind} of shape {shape}; {ACCEPTED}")
    if isinstance(source, Tensor):
        return source.detach().cpu().contiguous()
    return _to_tensor(np.array(source if source.ndim == 3 else np.stack([source] * 3, axis=-1)))  # not the caller's memory


def to_pil(image: Tensor) -> Image.Image:
    """A uint8 ``[3, H, W]`` image as a PIL image, which notebooks show and ``save`` writes."""
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())


def read_image(path: Path, content: bytes | None = None) -> Tensor:
    """The picture in RGB as a viewer shows it, uint8 ``[3, H, W]``; :func:`sga.pillow.rgb` says how odd pictures are shown.

    Args:
        path: Path of the image file.
        content: Bytes of the image, where it is part of another file; ``path`` is then its name in errors.

    Raises:
        ImageError: The file is missing, damaged, not an image, or has more than :func:`sga.pillow.max_pixels` pixels.
    """
    with pillow.opened(path, content) as file:
        return _to_tensor(pillow.rgb(file))


def image_size(path: Path, content: bytes | None = None) -> tuple[int, int]:
    """Height and width in pixels of the picture that :func:`read_image` returns, from the file's header alone (except TIFF).

    Raises:
        ImageError: The file is missing, damaged, not an image, or has more than :func:`sga.pillow.max_pixels` pixels.
    """
    with pillow.opened(path, content) as file:
        return pillow.upright_size(file)


def _to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def write_image(image: Tensor, path: Path) -> None:
    """Writes a uint8 ``[3, H, W]`` image in the format of the ending of ``path``, such as PNG: whole, or not at all."""
    with replacing(path) as temporary:
        to_pil(image).save(temporary)


def to_float(image: Tensor) -> Tensor:
    """Pixels as fp32 in [0, 1], from uint8."""
    return image.float() / 255


def to_uint8(x: Tensor) -> Tensor:
    """The 8-bit image of real-valued pixels, as a viewer gets it: clamped to [0, 1] and rounded to multiples of 1/255."""
    return x.clamp(0, 1).mul(255).round().to(torch.uint8)


def padded_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples of ``stride``."""
    return -(-height // stride) * stride, -(-width // stride) * stride


def pad(x: Tensor, stride: int) -> Tensor:
    """``x`` ``[..., C, H, W]``, floating point, with its last row and column repeated up to multiples of ``stride``.

    Repeating adds no edges to the image, so padding costs few bits.
    """
    height, width = x.shape[-2:]
    padded_height, padded_width = padded_size(height, width, stride)
    batch = x.reshape(-1, *x.shape[-3:])
    padded = F.pad(batch, (0, padded_width - width, 0, padded_height - height), mode="replicate")
    return padded.reshape(*x.shape[:-2], padded_height, padded_width)
