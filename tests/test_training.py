from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from data.samples import sample_paths
from data.training_data import TrainingDataModule
from lightning_modules.callbacks.validation_metrics import ValidationMetrics
from lightning_modules.training_module import TrainingDiverged, TrainingModule
from sga.codecs import ScaleHyperpriorCodec
from sga.codecs.checkpoint import load_codec
from sga.images import read_image, write_image

ROOT = Path(__file__).parents[1]
STEPS = 6


def arguments(photographs: Path, output: Path, *more: str) -> list[str]:
    return [
        *("fit", "--config", str(ROOT / "configs/train/scale_hyperprior.yaml")),
        *("--data.root", str(photographs), "--data.crop_size=64", "--data.batch_size=2", "--data.workers=0"),
        *("--data.steps_per_epoch=2", f"--trainer.max_steps={STEPS}", "--trainer.log_every_n_steps=1", "--model.warmup_steps=2"),
        *("--model.codec.init_args.N=8", "--model.codec.init_args.M=12", "--trainer.enable_progress_bar=false"),
        *("--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", "--output", str(output)),
        *more,
    ]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


class Stop(pl.Callback):
    """Ends the process's work in the middle of an epoch, as a kill would, after the checkpoint of that step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("killed")


def test_a_resumed_run_ends_in_the_weights_of_an_uninterrupted_one(photographs: Path, tmp_path: Path) -> None:
    train.main(arguments(photographs, tmp_path / "whole"))
    parts = arguments(photographs, tmp_path / "parts", "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*parts, "--trainer.callbacks+=tests.test_training.Stop"])
    assert torch.load(tmp_path / "parts/last.ckpt", weights_only=True)["global_step"] == 3
    train.main(parts)
    expected, found = weights(tmp_path / "whole/last.ckpt"), weights(tmp_path / "parts/last.ckpt")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_a_run_leaves_curves_pictures_checkpoints_and_its_configuration(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    train.main(arguments(photographs, output, "--data.valid", str(photographs), "--trainer.precision=bf16-mixed"))
    assert {path.name for path in output.iterdir()} >= {"config.yaml", "last.ckpt", "best.ckpt", "tensorboard"}
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    training = {f"train/{name}" for name in ("loss", "bpp", "bpp_y", "bpp_z", "psnr_db", "auxiliary_loss")}
    assert scalars >= training | {f"valid/{name}" for name in ("rd_loss", "bpp", "psnr_db", "ms_ssim")}
    assert {"lr-Adam/codec", "lr-Adam/quantiles"} <= scalars
    assert [tag for tag in events.Tags()["images"] if tag.startswith("valid/")] == ["valid/0", "valid/1"]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(STEPS))
    loaded = load_codec(output / "last.ckpt")
    assert loaded.lmbda == 0.013 and loaded.codec.net.N == 8


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
    module = TrainingModule(ScaleHyperpriorCodec(), warm_start="embedded")
    expected = load_codec("embedded").codec.net.g_a[0].weight
    assert torch.equal(module.codec.net.g_a[0].weight, expected)


def test_training_lowers_the_loss(photographs: Path, tmp_path: Path) -> None:
    more = ("--trainer.max_steps=60", "--model.learning_rate=2e-3", "--data.steps_per_epoch=60")
    train.main(arguments(photographs, tmp_path / "run", *more))
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.parametrize("setting", ["--model.lmbda=-1", "--model.learning_rate=0", "--data.crop_size=100"])
def test_bad_settings_are_one_line(setting: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments(photographs, tmp_path / "run"), setting])
    assert stop.value.code == 2
    assert "must be" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(tmp_path / "missing", tmp_path / "run"))
    assert stop.value.code == 2
    assert "no such folder of images" in capsys.readouterr().err.splitlines()[-1]


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


def test_a_plateau_steps_once_a_validation_through_a_resume(photographs: Path, tmp_path: Path) -> None:
    plateau = ("--data.valid", str(photographs), "--model.schedule=plateau")
    train.main(arguments(photographs, tmp_path / "whole", *plateau))
    parts = arguments(photographs, tmp_path / "parts", *plateau, "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*parts, "--trainer.callbacks+=tests.test_training.Stop"])
    train.main(parts)
    whole, found = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert whole["lr_schedulers"][0]["last_epoch"] == found["lr_schedulers"][0]["last_epoch"] == 3
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in whole["state_dict"].items())


def test_a_plateau_without_validation_is_refused_at_once(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.main(arguments(photographs, tmp_path / "run", "--model.schedule=plateau"))
    assert "give --data.valid" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "other", ["--model.lmbda=0.18", "--model.distortion=ms_ssim", "--model.learning_rate=1e-5", "--model.codec.init_args.N=16"]
)
def test_another_training_is_not_continued(
    other: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    train.main(arguments(photographs, output, "--trainer.max_steps=2"))
    before = (output / "config.yaml").read_text()
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(photographs, output, other))
    assert stop.value.code == 2
    assert "was trained with" in capsys.readouterr().err.splitlines()[-1]
    assert (output / "config.yaml").read_text() == before


def test_validation_images_that_cannot_be_used_are_left_out(photographs: Path, tmp_path: Path) -> None:
    valid = tmp_path / "valid"
    valid.mkdir()
    (valid / "damaged.png").write_bytes(sample_paths()[0].read_bytes()[:5000])
    write_image(read_image(sample_paths()[0])[:, :100, :200], valid / "small.png")
    write_image(read_image(sample_paths()[1])[:, :170, :200], valid / "large.png")
    ms_ssim = ("--model.distortion=ms_ssim", "--model.lmbda=8.73", "--data.crop_size=192", "--data.batch_size=1")
    folder = ("--data.valid", str(valid), "--trainer.max_steps=2")
    train.main(arguments(photographs, tmp_path / "run", *ms_ssim, *folder))
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    (loss,) = events.Scalars("valid/rd_loss")
    assert 0 < loss.value < 100


def test_a_cosine_needs_an_end(photographs: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        fit(photographs, [], -1)


def test_ms_ssim_trains_on_crops_that_are_large_enough(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ms_ssim = ("--model.distortion=ms_ssim", "--model.lmbda=8.73", "--trainer.max_steps=2")
    train.main(arguments(photographs, tmp_path / "run", *ms_ssim, "--data.crop_size=192", "--data.batch_size=1"))
    loaded = load_codec(tmp_path / "run/last.ckpt")
    assert (loaded.lmbda, loaded.distortion) == (8.73, "ms_ssim")
    with pytest.raises(SystemExit):
        train.main(arguments(photographs, tmp_path / "small", *ms_ssim))
    assert "at least 161 pixels, here they are 64 x 64" in capsys.readouterr().err.splitlines()[-1]


def test_accumulated_batches_equal_one_large_batch(photographs: Path, tmp_path: Path) -> None:
    train.main(arguments(photographs, tmp_path / "one"))
    half = ("--data.batch_size=1", "--trainer.accumulate_grad_batches=2", "--data.steps_per_epoch=4")
    train.main(arguments(photographs, tmp_path / "two", *half))
    expected, found = weights(tmp_path / "one/last.ckpt"), weights(tmp_path / "two/last.ckpt")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-6, msg=name)


EMA = (
    "--trainer.callbacks+={class_path: pytorch_lightning.callbacks.EMAWeightAveraging, init_args: {decay: 0.5, use_buffers: false}}"
)


def test_averaged_weights_are_saved_and_resumed(photographs: Path, tmp_path: Path) -> None:
    train.main(arguments(photographs, tmp_path / "plain"))
    train.main(arguments(photographs, tmp_path / "whole", EMA))
    parts = arguments(photographs, tmp_path / "parts", EMA, "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*parts, "--trainer.callbacks+=tests.test_training.Stop"])
    train.main(parts)
    plain, whole, found = (weights(tmp_path / name / "last.ckpt") for name in ("plain", "whole", "parts"))
    assert all(torch.equal(value, found[name]) for name, value in whole.items())
    assert not torch.equal(whole["codec.net.g_a.0.weight"], plain["codec.net.g_a.0.weight"])
