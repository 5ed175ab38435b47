from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.callbacks.image_means import QualityMeans
from lightning_modules.callbacks.validation_metrics import ValidationMetrics
from lightning_modules.training_module import TrainingModule
from sga.quality import Quality
from sga.rate_distortion import Objective
from sga.runs.summary import Means


@pytest.mark.parametrize("perfect", [None, math.inf])
def test_a_mean_leaves_out_perfect_images_and_counts_them(perfect: float | None) -> None:
    means = QualityMeans()
    for psnr in (perfect, 30.0):
        means.update(Quality(bpp=1.0, psnr_db=psnr, ms_ssim=0.5))
    found = {name: float(value) for name, value in means.compute().items()}
    assert found == {"bpp": 1.0, "psnr_db": 30.0, "ms_ssim": 0.5, "without_psnr_db": 1.0}
    rows = Means(["psnr_db"])
    for psnr in (perfect, 30.0):
        rows.add({"psnr_db": psnr})
    assert rows.compute() == {"psnr_db": 30.0} and rows.without(["psnr_db"]) == {"psnr_db": 1}


@pytest.mark.parametrize(("kinds", "psnr"), [("pf", 20 * math.log10(255 / 51)), ("pp", None), ("ff", 20 * math.log10(255 / 51))])
def test_validation_with_perfect_images_has_finite_means(kinds: str, psnr: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Objective(0.01, "mse")
    module = TrainingModule.__new__(TrainingModule)
    pl.LightningModule.__init__(module)
    logged: dict[str, Any] = {}
    monkeypatch.setattr(TrainingModule, "objective", objective, raising=False)
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    callback, trainer = ValidationMetrics(), cast(Any, SimpleNamespace())
    callback.setup(trainer, module, "validate")
    callback.on_validation_epoch_start(trainer, module)
    for kind in kinds:
        x = torch.zeros(3, 64, 64)
        x_hat = x if kind == "p" else x + 51 / 255
        outputs = {"x": [x], "x_hat": [x_hat], "bits": [torch.tensor(4096.0)], "rd_loss": [torch.tensor(1.0)]}
        callback.on_validation_batch_end(trainer, module, outputs)
    callback.on_validation_epoch_end(trainer, module)
    assert all(math.isfinite(value) for value in logged.values())
    assert logged.get("valid/psnr_db") == (psnr and pytest.approx(psnr))
    assert logged.get("valid/without_psnr_db", 0) == kinds.count("p") and logged["valid/bpp"] == 1
    mse = 0 if psnr is None else 0.04
    assert logged["valid/rd_loss_of_means"] == pytest.approx(1 + 0.01 * 255**2 * mse)


def test_an_infinite_value_of_an_old_file_is_no_value() -> None:
    row = {"bpp": 1.0, "psnr_db": math.inf, "ms_ssim": 1.0, "ms_ssim_db": math.inf}
    assert Quality.from_columns(row) == Quality(bpp=1.0, psnr_db=None, ms_ssim=1.0)
