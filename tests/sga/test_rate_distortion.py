from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sga.codecs import Bits
from sga.distortion import TruePixels
from sga.images import pad, to_float
from sga.rate_distortion import Objective, rate_distortion


def test_lagrangian_is_the_convention_of_compressai() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x_hat = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.2)])
    bits = Bits(y=torch.tensor([16.0, 32.0]), z=torch.tensor([8.0, 0.0]))
    result = rate_distortion(x, x_hat, bits, Objective(0.013), TruePixels.of(x))
    torch.testing.assert_close(result.bpp, torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(result.mse, torch.tensor([0.01, 0.04]))
    torch.testing.assert_close(result.loss, 0.013 * 255**2 * torch.tensor([0.01, 0.04]) + torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(result.psnr_db, torch.tensor([20.0, 13.9794]))


def test_ms_ssim_is_weighed_against_the_rate_and_sees_no_padding(photograph: Tensor) -> None:
    image = to_float(photograph)[None, :, :170, :200]
    noisy = (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    bits = Bits(y=torch.tensor([340.0]), z=torch.tensor([0.0]))
    alone = rate_distortion(image, noisy, bits, Objective(8.73, "ms_ssim"), TruePixels.of(image))
    x, x_hat = pad(image, 64), torch.nn.functional.pad(noisy, (0, 56, 0, 22))
    padded = rate_distortion(x, x_hat, bits, Objective(8.73, "ms_ssim"), TruePixels.of(x, [(170, 200)]))
    torch.testing.assert_close(padded.loss, alone.loss)
    assert 0.01 + 8.73 * 0.02 < alone.loss.item() < 8.73
    assert torch.isfinite(torch.autograd.grad(alone.loss.sum(), noisy)[0]).all()


def test_ms_ssim_of_a_small_image_says_why_not() -> None:
    x = torch.zeros(1, 3, 128, 256)
    bits = Bits(y=torch.ones(1), z=torch.ones(1))
    with pytest.raises(ValueError, match="at least 161 pixels, here they are 256 x 128"):
        rate_distortion(x, x, bits, Objective(8.73, "ms_ssim"), TruePixels.of(x))
