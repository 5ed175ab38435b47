"""Pictures: in TensorBoard while a codec trains or a job refines, and side by side in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from data.images import read_image
from lightning_modules.bitstream import decode_image
from lightning_modules.codecs.checkpoint import LoadedCodec
from lightning_modules.results import BASE_BITSTREAMS, BITSTREAMS, ImageResult, format_psnr

MARGIN = 8
CAPTION_HEIGHT = 30


def curve_step(trainer: pl.Trainer) -> int:
    """Where Lightning puts what it logs now: the step that was done last, counted from 0."""
    return max(0, trainer.global_step - 1)


class Reconstructions(pl.Callback):
    """Puts the first validation images beside their reconstructions into TensorBoard.

    Args:
        images: How many.
    """

    def __init__(self, images: int = 4) -> None:
        self.images = images

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        assert isinstance(outputs, Mapping)
        if batch_idx >= self.images or len(outputs["x"]) == 0 or not isinstance(trainer.logger, TensorBoardLogger):
            return
        pair = torch.cat([outputs["x"][0], outputs["x_hat"][0]], dim=-1)
        trainer.logger.experiment.add_image(f"valid/{batch_idx}", pair.clamp(0, 1), curve_step(trainer))


def side_by_side(panels: Mapping[str, Tensor], path: Path) -> None:
    """Writes images beside one another, each under its caption.

    Args:
        panels: Captions and uint8 images ``[3, H, W]`` of one size.
        path: A PNG file.
    """
    captioned(panels).save(path)


def draw_comparison(loaded: LoadedCodec, original: Path, output: Path, result: ImageResult) -> Path:
    """Draws an image of a refinement from its files: original, base and refined, with bpp and PSNR.

    Args:
        loaded: The codec of the refinement.
        original: File of the image.
        output: Folder of the run.
        result: Of the image.

    Returns:
        The picture, ``comparison.png`` in ``output``.
    """
    panels = {"original": read_image(original)}
    for caption, folder, bpp, psnr_db in (
        ("base", BASE_BITSTREAMS, result.bpp_base, result.psnr_db_base),
        ("refined", BITSTREAMS, result.bpp, result.psnr_db),
    ):
        decoded = decode_image(loaded, (output / folder / f"{result.image}.bin").read_bytes())
        panels[f"{caption}: {bpp:.4f} bpp, {format_psnr(psnr_db)}"] = decoded
    path = output / "comparison.png"
    side_by_side(panels, path)
    return path


def captioned(panels: Mapping[str, Tensor]) -> Image.Image:
    """Images ``[3, H, W]`` (uint8, of one size) beside one another, each under its caption."""
    images = [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in panels.values()]
    width, height = images[0].size
    canvas = Image.new("RGB", (len(images) * (width + MARGIN) + MARGIN, height + CAPTION_HEIGHT + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=16)
    longest = max(draw.textlength(caption, font) for caption in panels)
    if longest > width:  # a caption stays over its picture
        font = ImageFont.load_default(size=max(8, 16 * width / longest))
    for column, (caption, image) in enumerate(zip(panels, images, strict=True)):
        left = MARGIN + column * (width + MARGIN)
        canvas.paste(image, (left, CAPTION_HEIGHT))
        draw.text((left, 6), caption, fill="black", font=font)
    return canvas
