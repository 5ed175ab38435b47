from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from data.training_data import TrainingDataModule
from lightning_modules.callbacks.validation_metrics import ValidationMetrics
from lightning_modules.training_module import TrainingDiverged, TrainingModule
from sga.codecs import ScaleHyperpriorCodec, VariableRateScaleHyperpriorCodec
from sga.loading import load_codec


def test_gradients_of_the_two_losses_do_not_meet() -> None:
    torch.manual_seed(0)
    module = TrainingModule(ScaleHyperpriorCodec(N=8, M=12))
    (quantiles,) = module.codec.quantiles
    module.codec.auxiliary_loss().backward()
    assert quantiles.grad is not None and quantiles.grad.abs().sum() > 0
    assert all(p.grad is None or not p.grad.any() for p in module.codec.parameters() if p is not quantiles)


def test_clipping_leaves_the_quantiles_alone(photographs: Path) -> None:
    module = TrainingModule(ScaleHyperpriorCodec(N=8, M=12), clip_norm=0.5)
    trainer = pl.Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(module, TrainingDataModule(photographs, crop_size=64, batch_size=1, workers=0, steps_per_epoch=1))
    optimizer = trainer.optimizers[0]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    module.configure_gradient_clipping(optimizer)
    main, (quantiles,) = (group["params"] for group in optimizer.param_groups)
    norm = torch.stack([parameter.grad.norm() for parameter in main if parameter.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-3)
    assert quantiles.grad is not None and (quantiles.grad == 1).all()


def test_a_warm_start_begins_with_the_weights_of_a_checkpoint() -> None:
    module = TrainingModule(VariableRateScaleHyperpriorCodec(), warm_start="embedded")
    expected = load_codec("embedded").codec.net.g_a[0].weight
    assert torch.equal(module.codec.net.g_a[0].weight, expected)


class Spoil(pl.Callback):
    """Makes the gradients of some steps NaN, as a bad batch would."""

    def __init__(self, first: int, last: int) -> None:
        self.steps = range(first, last + 1)

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.before = [parameter.detach().clone() for parameter in module.parameters()]
        if trainer.global_step in self.steps:
            next(iter(module.parameters())).grad.fill_(torch.nan)  # type: ignore[union-attr]

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        unchanged = all(torch.equal(a, b) for a, b in zip(self.before, module.parameters(), strict=True))
        assert unchanged == (trainer.global_step - 1 in self.steps)


def fit(photographs: Path, callbacks: list[pl.Callback], steps: int, **settings: object) -> TrainingModule:
    module = TrainingModule(ScaleHyperpriorCodec(N=8, M=12), **settings)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = TrainingDataModule(photographs, photographs, crop_size=64, batch_size=1, workers=0, steps_per_epoch=2)
    trainer.fit(module, data)
    return module


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(photographs: Path) -> None:
    module = fit(photographs, [Spoil(2, 3)], 6)
    assert module.skipped_steps == 2 and module.skipped_in_a_row == 0
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_a_training_that_diverged_ends_and_says_so(photographs: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"steps, up to .* were not finite; start anew"):
        fit(photographs, [Spoil(1, 100)], 60, max_skipped_steps=12)


def test_a_plateau_halves_the_codecs_learning_rate_alone(photographs: Path) -> None:
    module = fit(
        photographs, [ValidationMetrics()], 4, schedule="plateau", learning_rate=1e-4, final_learning_rate=4e-5, plateau_patience=1
    )
    scheduler = module.lr_schedulers()
    rates = []
    for loss in (0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4):
        scheduler.step(loss)  # type: ignore[call-arg, union-attr, arg-type]
        rates.append(scheduler.get_last_lr())  # type: ignore[union-attr]
    assert [main for main, _ in rates] == pytest.approx([1e-4] * 3 + [5e-5] * 2 + [4e-5] * 3)
    assert {quantiles for _, quantiles in rates} == {1e-3}


def test_a_cosine_needs_an_end(photographs: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        fit(photographs, [], -1)
