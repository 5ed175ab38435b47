"""Pillow's images as 8-bit RGB: orientation, transparency, deep modes, and the limit of pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sga.names import escaped

MAX_PIXELS = 10**8
"""Largest number of pixels of an image that is decoded, unless the environment variable :data:`LIMIT_VARIABLE` says otherwise."""
LIMIT_VARIABLE = "SGA_MAX_PIXELS"
PLUGINS = {
    ".heic": ("pillow_heif", "pillow-heif"),
    ".heif": ("pillow_heif", "pillow-heif"),
    ".jxl": ("pillow_jxl", "pillow-jxl-plugin"),
}
"""Module and package that read a format which Pillow does not, by the ending."""
ORIENTATION = 0x0112
"""EXIF tag of the orientation, 1 ... 8."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """Error for a source that cannot be read as an image; the message names the file, or the accepted types."""


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Context in which whatever a reader of Pillow raises is an :class:`ImageError` that names the image.

    Readers of damaged files raise what their parsing happens to meet (``struct.error``, ``KeyError``, ``MemoryError``, ...).
    """
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"cannot read {escaped(name)} as an image: {_too_large()}") from error
    except UnidentifiedImageError as error:
        plugin = PLUGINS.get(Path(name).suffix.lower())
        if plugin is None or find_spec(plugin[0]):
            raise ImageError(f"cannot read {escaped(name)} as an image: its content is of no known format") from error
        raise ImageError(f"cannot read {escaped(name)} as an image: pip install {plugin[1]}") from error
    except Exception as error:
        reason = str(error) if isinstance(error, (OSError, ValueError, SyntaxError)) else ""
        raise ImageError(
            f"cannot read {escaped(name)} as an image: {reason or f'damaged ({type(error).__name__}: {error})'}"
        ) from error


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """An image file, of which only the header is read yet; ``content`` are its bytes where it is part of another file.

    Raises:
        ImageError: The file is missing, damaged, not an image, or has more pixels than the limit; also for errors in the context.
    """
    with reading(path):
        _add_formats()
        limit = max_pixels()
        if Image.MAX_IMAGE_PIXELS is not None:  # Pillow warns at its own limit and refuses at twice that
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
        with Image.open(path if content is None else BytesIO(content)) as file:
            width, height = file.size
            if width * height > limit:
                raise ValueError(f"{width} x {height} pixels, {_too_large()}")
            yield file


@cache
def _add_formats() -> None:
    """Adds the formats of installed plugins to Pillow."""
    for module in sorted({module for module, _ in PLUGINS.values()}):
        try:
            plugin = import_module(module)
        except ImportError:  # missing, or it does not fit this machine
            continue
        if hasattr(plugin, "register_heif_opener"):  # the other registers itself
            plugin.register_heif_opener()


def max_pixels() -> int:
    """Largest number of pixels of an image that is decoded: ``$SGA_MAX_PIXELS``, by default :data:`MAX_PIXELS`.

    Raises:
        ValueError: The variable is not a whole number above 0.
    """
    given = os.environ.get(LIMIT_VARIABLE) or str(MAX_PIXELS)
    if not (given.isascii() and given.isdecimal() and int(given)):
        raise ValueError(f"{LIMIT_VARIABLE} must be a whole number above 0, not {given}")
    return int(given)


def upright_size(file: Image.Image) -> tuple[int, int]:
    """Height and width in pixels of :func:`rgb`'s picture, from the header alone (except TIFF)."""
    if file.format == "TIFF":  # some versions of Pillow swap the sides by themselves
        file = upright(file)
        return file.height, file.width
    width, height = file.size
    return (width, height) if _orientation(file) >= 5 else (height, width)


def rgb(file: Image.Image) -> NDArray[np.uint8]:
    """Pixels in RGB as a viewer shows them, ``[H, W, 3]``, in memory of their own.

    The picture is turned by its EXIF orientation, where that is readable, and transparent parts lie over white. Gray images of 16
    bits have white at 65535. In gray images of 32 bits and floats white is the least of 1 (floats only), 255 and 65535 that holds
    all values; floats up to 2 still count as overshoot above a white of 1. What is outside black ... white is clipped.

    Raises:
        ValueError: A pixel is infinite or not a number.
        Exception: Anything else that Pillow raises for a damaged file; :func:`reading` makes it an :class:`ImageError`.
    """
    image = upright(file)
    if image.mode[0] in "IF":  # Pillow's convert would clip these at 255
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are not finite numbers")
        scale = 255 / _white(image.mode, file.format, values.max(initial=0))
        clear = values == image.info.get("transparency")  # a gray of a PNG; Pillow's composition knows it with 8 bits alone
        image = Image.fromarray(np.where(clear, 255, np.clip(values * scale + 0.5, 0, 255)).astype(np.uint8))
    if image.has_transparency_data:
        if image.mode == "La":  # Pillow converts it to LA alone
            image = image.convert("LA")
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.array(image.convert("RGB"))


def upright(file: Image.Image) -> Image.Image:
    """The decoded picture, turned by its EXIF orientation; no other entry of EXIF is looked at, since any may be damaged."""
    if file.format != "TIFF":
        file.load()
        turn = _TURNS.get(_orientation(file))
        return file if turn is None else file.transpose(turn)
    # Pillow turns a TIFF while it loads it, and rewrites EXIF: it is given the orientation alone.
    alone = Image.Exif()
    alone[ORIENTATION] = _orientation(file)
    file.getexif = lambda: alone  # type: ignore[method-assign]
    file.load()
    turn = _TURNS.get(alone.get(ORIENTATION, 1))
    return file if turn is None else file.transpose(turn)


def _orientation(file: Image.Image) -> int:
    """EXIF orientation, 1 ... 8; 1, upright, where it is missing or unreadable."""
    try:
        found = file.getexif().get(ORIENTATION, 1)
        return int(found) if found in range(1, 9) else 1
    except Exception:  # EXIF of a wrong type raises anything
        return 1


def _white(mode: str, container: str | None, largest: float) -> float:
    """Value of white in a deep gray image; see :func:`rgb`."""
    if mode.startswith("I;16") or (mode == "I" and container in ("PNG", "PPM")):  # Pillow scales those to 16 bits
        return 65535
    return 1 if mode == "F" and largest <= 2 else 255 if largest <= 255 else 65535


def _too_large() -> str:
    return (
        f"more than the limit of {max_pixels()}: where the memory suffices, raise it with the environment variable {LIMIT_VARIABLE}"
    )
