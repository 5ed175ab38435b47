"""Pictures side by side, each under its caption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sga.bitstream import decode_image
from sga.files import replacing
from sga.images import read_image
from sga.loading import LoadedCodec
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS
from sga.runs.results import ImageResult

MARGIN = 8
CAPTION_HEIGHT = 30


def side_by_side(panels: Mapping[str, Tensor], path: Path) -> None:
    """Writes images beside one another, each under its caption.

    Args:
        panels: Images by caption, uint8 ``[3, H, W]``, of one size.
        path: Path of a PNG file.
    """
    with replacing(path) as temporary:
        captioned(panels).save(temporary)


def draw_comparison(loaded: LoadedCodec, original: Path, output: Path, result: ImageResult) -> Path:
    """Draws an image of a refinement from its files: original, base and refined, with bpp and PSNR.

    Args:
        loaded: Codec of the refinement.
        original: Path of the original image.
        output: Folder of the run.
        result: Result of the image.

    Returns:
        Path of the picture, ``comparison.png`` in ``output``.
    """
    panels = {"original": read_image(original)}
    for caption, folder, quality in (("base", BASE_BITSTREAMS, result.base), ("refined", BITSTREAMS, result.refined)):
        decoded = decode_image(loaded, (output / folder / f"{result.image}.bin").read_bytes())
        panels[f"{caption}: {quality.bpp:.4f} bpp, {quality.psnr_text}"] = decoded
    path = output / "comparison.png"
    side_by_side(panels, path)
    return path


def captioned(panels: Mapping[str, Tensor]) -> Image.Image:
    """One picture of images (uint8 ``[3, H, W]``, of one size) beside one another, each under its caption."""
    images = [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in panels.values()]
    width, height = images[0].size
    canvas = Image.new("RGB", (len(images) * (width + MARGIN) + MARGIN, height + CAPTION_HEIGHT + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=16)
    longest = max(draw.textlength(caption, font) for caption in panels)
    if longest > width:  # a caption must not reach over the next picture
        font = ImageFont.load_default(size=max(8, 16 * width / longest))
    for column, (caption, image) in enumerate(zip(panels, images, strict=True)):
        left = MARGIN + column * (width + MARGIN)
        canvas.paste(image, (left, CAPTION_HEIGHT))
        draw.text((left, 6), caption, fill="black", font=font)
    return canvas
