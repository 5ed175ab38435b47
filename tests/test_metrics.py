from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.callbacks.image_means import BitsPerPixel, MsSsim, Psnr
from sga.quality import ms_ssim, psnr_db


def test_psnr_is_of_eight_bit_pixels() -> None:
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert psnr_db(image, image + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_db(image, image) == math.inf


def test_the_mean_is_over_images_not_over_errors() -> None:
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    metric, bits = Psnr(), torch.tensor(32.0)
    metric.update(image, image + 1, bits)
    metric.update(image, image + 10, bits)
    assert metric.compute().item() == pytest.approx((20 * math.log10(255) + 20 * math.log10(25.5)) / 2)


def test_ms_ssim_leaves_small_images_out(photograph: Tensor) -> None:
    noisy = (photograph.float() + 20 * torch.randn(photograph.shape)).clamp(0, 255).to(torch.uint8)
    assert ms_ssim(photograph, photograph) == pytest.approx(1.0)
    value = ms_ssim(photograph, noisy)
    assert value is not None and 0.5 < value < 0.99
    assert ms_ssim(photograph[:, :160], noisy[:, :160]) is None
    assert ms_ssim(photograph[:, :161, :161], noisy[:, :161, :161]) is not None
    metric = MsSsim()
    metric.update(photograph[:, :50], noisy[:, :50], torch.tensor(0.0))
    metric.update(photograph, noisy, torch.tensor(0.0))
    assert metric.compute().item() == pytest.approx(value) and metric.count == 1


def test_bits_a_pixel() -> None:
    metric, image = BitsPerPixel(), torch.zeros(3, 4, 8, dtype=torch.uint8)
    metric.update(image, image, torch.tensor(64.0))
    metric.update(image, image, torch.tensor(16.0))
    assert metric.compute().item() == pytest.approx(1.25)
