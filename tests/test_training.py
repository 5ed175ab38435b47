from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from data.samples import sample_paths
from data.training_data import TrainingDataModule
from lightning_modules.codecs import ScaleHyperpriorCodec
from lightning_modules.codecs.checkpoint import load_codec
from lightning_modules.training_module import TrainingModule

ROOT = Path(__file__).parents[1]
STEPS = 6


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sample_paths()[:2]:
        (folder / path.name).symlink_to(path)
    return folder


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
    assert events.Tags()["images"] == ["valid/0", "valid/1"]
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


@pytest.mark.parametrize("config", sorted((ROOT / "configs/train").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_parses(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(["fit", "--config", str(config), "--data.root=photographs", "--print_config"])
    assert stop.value.code == 0
    assert "lmbda: 0.013" in capsys.readouterr().out


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
