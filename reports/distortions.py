"""The same photographs coded by an MSE model and an MS-SSIM model at equal bpp: ``python reports/distortions.py --help``.

This is the qualitative comparison of Balle et al. 2018 (section 4): squared error keeps sharp edges and smooths texture, MS-SSIM
spends its bits on texture of low contrast. Each photograph is refined with the MS-SSIM model first, then with the MSE model, whose
lambda moves until its file has the same size within 1 %.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from data.samples import sample_paths
from sga.cli import errors_in_one_line
from sga.coding import CodedImage
from sga.images import read_image
from sga.loading import LoadedCodec, load_codec
from sga.photograph import refine_photograph
from sga.pictures import side_by_side
from sga.quality import METRICS
from sga.refinement.presets import preset
from sga.refinement.target import Target


def refined(loaded: LoadedCodec, image: Tensor, steps: int, target: Target | None = None) -> CodedImage:
    """The refined file of a uint8 image ``[3, H, W]``, for the model's own distortion; a target replaces the model's lambda.

    Where the target cannot be reached, it is the nearest file, and a line on standard error says so.
    """
    coded = refine_photograph(loaded, image, loaded.objective(), preset(steps=steps), target).refined
    if target is not None and not target.reached(coded.quality.bpp, coded.quality.psnr_db):
        print(target.missed(coded.quality.bpp, coded.quality.psnr_db), file=sys.stderr)
    return coded


def caption(name: str, coded: CodedImage) -> str:
    """Caption of a picture: rate, PSNR and MS-SSIM."""
    quality, metric = coded.quality, METRICS["ms_ssim"]
    return f"{name}: {quality.bpp:.3f} bpp, {quality.psnr_text}, {metric.title} {metric.text(quality.ms_ssim)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="*", help="image files (default: the embedded ones)")
    parser.add_argument("--mse", required=True, help="checkpoint of a model for MSE")
    parser.add_argument("--ms-ssim", required=True, help="checkpoint of a model for MS-SSIM")
    parser.add_argument("--steps", type=int, default=100, help="steps of refinement (default: 100)")
    parser.add_argument("--crop", type=int, default=420, help="side in pixels of the central crop that is shown (default: 420)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pictures")
    args = parser.parse_args()
    torch.manual_seed(0)
    with errors_in_one_line():
        mse, ms_ssim = load_codec(args.mse), load_codec(args.ms_ssim)
        if (mse.distortion, ms_ssim.distortion) != ("mse", "ms_ssim") or None in (mse.lmbda, ms_ssim.lmbda):
            raise ValueError(f"--mse and --ms-ssim were trained for {mse.distortion} and {ms_ssim.distortion}")
        args.output.mkdir(parents=True, exist_ok=True)
        for path in args.photographs or sample_paths():
            image = read_image(path)
            by_ms_ssim = refined(ms_ssim, image, args.steps)
            by_mse = refined(mse, image, args.steps, Target("bpp", by_ms_ssim.quality.bpp))
            captions = {"original": image, caption("MSE", by_mse): by_mse.image, caption("MS-SSIM", by_ms_ssim): by_ms_ssim.image}
            side_by_side(
                {text: _middle(picture, args.crop) for text, picture in captions.items()}, args.output / f"{path.stem}.png"
            )
            print(path.stem, *list(captions)[1:], sep="\n  ", flush=True)
    return 0


def _middle(image: Tensor, side: int) -> Tensor:
    """Central square of an image ``[3, H, W]`` with sides of ``side`` pixels, or of the image's where that is smaller."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side]


if __name__ == "__main__":
    sys.exit(main())
