from __future__ import annotations

import torch

from lightning_modules.codecs import Bits
from lightning_modules.rate_distortion import mean_squared_error, rate_distortion


def test_lagrangian_is_the_convention_of_compressai() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x_hat = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.2)])
    bits = Bits(y=torch.tensor([16.0, 32.0]), z=torch.tensor([8.0, 0.0]))
    result = rate_distortion(x, x_hat, bits, 0.013, pixels=16)
    torch.testing.assert_close(result.bpp, torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(result.mse, torch.tensor([0.01, 0.04]))
    torch.testing.assert_close(result.loss, 0.013 * 255**2 * torch.tensor([0.01, 0.04]) + torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(result.psnr_db, torch.tensor([20.0, 13.9794]))


def test_distortion_counts_true_pixels_alone() -> None:
    x = torch.zeros(1, 3, 4, 4)
    x_hat = torch.full_like(x, 0.1)
    x_hat[..., 2:, :] = 9.0
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    torch.testing.assert_close(mean_squared_error(x, x_hat, mask), torch.tensor([0.01]))
