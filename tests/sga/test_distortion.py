from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sga.distortion import (
    DISTORTIONS,
    Distortion,
    SquaredError,
    StructuralDissimilarity,
    TruePixels,
    mean_squared_error,
    ms_ssim,
)
from sga.images import to_float
from sga.refinement.noise import Noise


def test_the_curvature_of_ms_ssim_is_that_of_its_loss() -> None:
    """Along random signs, half the second derivative is the mean of the diagonal; so is a second difference."""
    torch.manual_seed(0)
    base = nn.functional.interpolate(torch.rand(1, 3, 12, 12), size=192, mode="bicubic").clamp(0, 1)
    x = base + 0.05 * torch.randn_like(base)
    x_hat = base + 0.05 * torch.randn_like(base)
    true = TruePixels.of(x)
    curvature = StructuralDissimilarity().curvature(x, x_hat, true, Noise([0]).signs).double()

    def second_difference(signs: Tensor, size: float = 4e-3) -> float:
        values = [float(ms_ssim(x.double(), x_hat.double() + k * size * signs, true)) for k in (-1, 0, 1)]
        return -(values[0] - 2 * values[1] + values[2]) / (2 * size**2)

    signs = [torch.where(torch.rand(x.shape) < 0.5, -1.0, 1.0).double() for _ in range(4)]
    measured = sum(second_difference(sign) for sign in signs) / len(signs)
    assert float(curvature.sum()) == pytest.approx(measured, rel=0.3)


def test_opposite_contrasts_leave_the_curvature_of_ms_ssim_finite() -> None:
    x = torch.rand(1, 3, 176, 192, generator=torch.Generator().manual_seed(0))
    curvature = StructuralDissimilarity().curvature(x, 1 - x, TruePixels.of(x, [(170, 185)]), Noise([0]).signs)
    assert torch.isfinite(curvature).all() and curvature.min() >= 0
    assert curvature[..., 170:, :].abs().max() == 0


def test_distortion_counts_true_pixels_alone() -> None:
    x = torch.zeros(1, 3, 4, 4)
    x_hat = torch.full_like(x, 0.1)
    x_hat[..., 2:, :] = 9.0
    true = TruePixels.of(x, [(2, 4)])
    torch.testing.assert_close(mean_squared_error(x, x_hat, true.mask), torch.tensor([0.01]))
    torch.testing.assert_close(true.count, torch.tensor([8.0]))


def test_measured_numbers_become_the_distortion_of_the_loss() -> None:
    squared, similar = DISTORTIONS["mse"], DISTORTIONS["ms_ssim"]
    assert isinstance(squared, SquaredError) and isinstance(similar, StructuralDissimilarity)
    for mse in (0.1, 0.001, 0.0):
        assert squared.measured(mse, 0.5) == squared.measured(mse, None) == mse
    assert similar.measured(0.001, 0.98) == similar.measured(0.5, 0.98) == pytest.approx(0.02)
    assert similar.measured(0.001, 1.0) == 0 and similar.measured(0.001, None) is None
    assert (squared.scale, similar.scale) == (255**2, 1)
    assert (squared.min_side, similar.min_side) == (1, 161)


def test_measured_numbers_agree_with_the_pixels(photograph: Tensor) -> None:
    x = to_float(photograph)[None, :, :170, :200]
    x_hat = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    true = TruePixels.of(x)
    mse = (x - x_hat).square().mean()
    expected = SquaredError().measured(float(mse), None)
    assert float(SquaredError()(x, x_hat, true)) == pytest.approx(expected, rel=1e-5)
    similarity = float(ms_ssim(x, x_hat, true))
    assert 0.5 < similarity < 0.99
    found = float(StructuralDissimilarity()(x, x_hat, true))
    assert found == pytest.approx(1 - similarity, rel=1e-6)
    assert found == pytest.approx(StructuralDissimilarity().measured(float(mse), similarity), rel=1e-6)


@pytest.mark.parametrize("distortion", DISTORTIONS.values(), ids=lambda distortion: distortion.title)
def test_equal_images_have_no_distortion(distortion: Distortion, photograph: Tensor) -> None:
    x = to_float(photograph)[None, :, :192, :192]
    assert distortion(x, x, TruePixels.of(x)).tolist() == pytest.approx([0], abs=1e-6)


def test_the_curvature_of_the_squared_error_is_half_its_second_derivative() -> None:
    torch.manual_seed(0)
    x, x_hat = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    true = TruePixels.of(x, [(8, 8), (5, 6)])
    curvature = SquaredError().curvature(x, x_hat, true, Noise([0, 1]).signs)

    def total(values: Tensor) -> Tensor:
        return SquaredError()(x, values.view_as(x), true).sum()

    hessian = torch.autograd.functional.hessian(total, x_hat.flatten())
    torch.testing.assert_close(curvature.flatten(), hessian.diagonal() / 2, check_dtype=False)
    assert curvature[1, :, 5:].abs().max() == curvature[1, :, :, 6:].abs().max() == 0
    assert float(curvature[1, 0, 0, 0]) == pytest.approx(1 / (3 * 5 * 6))


def test_an_image_that_is_too_small_has_no_curvature_of_ms_ssim() -> None:
    x = torch.zeros(1, 3, 160, 192)
    with pytest.raises(ValueError, match="at least 161 pixels, here they are 192 x 160"):
        StructuralDissimilarity().curvature(x, x, TruePixels.of(x), Noise([0]).signs)


def test_true_pixels_of_a_batch_that_is_not_padded_need_no_mask() -> None:
    x = torch.zeros(2, 3, 4, 6)
    assert TruePixels.of(x).mask is None and TruePixels.of(x, [(4, 6), (4, 6)]).mask is None
    assert TruePixels.of(x).count.tolist() == [24, 24]
    padded = TruePixels.of(x, [(4, 6), (2, 5)])
    assert padded.mask is not None and padded.mask.sum((1, 2, 3)).tolist() == padded.count.tolist() == [24, 10]
