"""``train.py fit``: what it leaves, goes on from, and refuses."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from data.samples import sample_paths
from sga.images import read_image, write_image
from sga.loading import load_codec
from tests.training import STEPS, arguments, weights


def test_a_resumed_run_ends_in_the_weights_of_an_uninterrupted_one(photographs: Path, tmp_path: Path) -> None:
    train.main(arguments(photographs, tmp_path / "whole"))
    parts = arguments(photographs, tmp_path / "parts", "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*parts, "--trainer.callbacks+=tests.training.Stop"])
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


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "16-true", "16-mixed", "transformer-engine"])
def test_a_precision_that_is_not_supported_is_one_line(
    precision: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments(photographs, tmp_path / "run"), f"--trainer.precision={precision}"])
    assert stop.value.code == 2
    line = f"error: --trainer.precision {precision} is not supported: use 32-true or bf16-mixed"
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("--trainer.gradient_clip_val=0.5", "--model.clip_norm"),
        ("--trainer.default_root_dir=elsewhere", "--output"),
        ("--trainer.use_distributed_sampler=true", "share the crops"),
        ("--trainer.plugins=LightningEnvironment", "the project's own"),
    ],
)
def test_an_option_without_effect_is_refused_by_name(
    option: str, instead: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments(photographs, tmp_path / "run"), option])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{option.split('=', maxsplit=1)[0]} has no effect here: " in line and instead in line
    assert not (tmp_path / "run").exists()


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(tmp_path / "missing", tmp_path / "run"))
    assert stop.value.code == 2
    assert "no such folder of images" in capsys.readouterr().err.splitlines()[-1]


def test_a_plateau_steps_once_a_validation_through_a_resume(photographs: Path, tmp_path: Path) -> None:
    plateau = ("--data.valid", str(photographs), "--model.schedule=plateau")
    train.main(arguments(photographs, tmp_path / "whole", *plateau))
    parts = arguments(photographs, tmp_path / "parts", *plateau, "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*parts, "--trainer.callbacks+=tests.training.Stop"])
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


@pytest.mark.parametrize("steps", [4, 8])
def test_a_cosine_of_another_length_is_not_continued(
    steps: int, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rate would jump: up, where the run had ended."""
    output = tmp_path / "run"
    train.main(arguments(photographs, output))
    before = {path: path.read_bytes() for path in (output / "config.yaml", output / "last.ckpt")}
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(photographs, output, f"--trainer.max_steps={steps}"))
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"ends after {STEPS} steps, not {steps}: leave --trainer.max_steps" in line and "--model.warm_start" in line
    assert {path: path.read_bytes() for path in before} == before


def test_a_plateau_goes_on_for_more_steps(photographs: Path, tmp_path: Path) -> None:
    plateau = ("--data.valid", str(photographs), "--model.schedule=plateau")
    train.main(arguments(photographs, tmp_path / "whole", *plateau))
    train.main(arguments(photographs, tmp_path / "parts", *plateau, "--trainer.max_steps=4"))
    train.main(arguments(photographs, tmp_path / "parts", *plateau))
    whole, found = (weights(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert all(torch.equal(value, found[name]) for name, value in whole.items())


@pytest.mark.filterwarnings("ignore:.*it is left out", "ignore:.* they have no MS-SSIM")
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


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Puts the signals' handlers back, which a stopped training leaves as they are."""
    kept = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for signum, handler in kept.items():
            signal.signal(signum, handler)


EMA = (
    "--trainer.callbacks+={class_path: pytorch_lightning.callbacks.EMAWeightAveraging, init_args: {decay: 0.5, use_buffers: false}}"
)


SCHEDULES = {
    "cosine": ("--model.schedule=cosine",),
    "plateau": ("--model.schedule=plateau", "--model.plateau_patience=0"),
    "average": (EMA,),
    "within epochs": ("--data.steps_per_epoch=6", "--trainer.val_check_interval=2"),
    "over epochs": ("--trainer.val_check_interval=3", "--trainer.check_val_every_n_epoch=null"),
}


@pytest.fixture(scope="module", params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Options of a training, and the folder of one that was not interrupted."""
    options = ["--data.valid", str(photographs), "--checkpoint_every=100", *SCHEDULES[request.param]]
    output = tmp_path_factory.mktemp("whole")
    train.main(arguments(photographs, output, *options))
    return options, output


@pytest.mark.parametrize("step", [2, 3])  # at the end of an epoch of two steps, and in the middle
def test_a_training_stopped_after_any_step_ends_as_if_it_had_not_been(
    step: int, schedule: tuple[list[str], Path], photographs: Path, tmp_path: Path
) -> None:
    options, whole = schedule
    parts = arguments(photographs, tmp_path / "run", *options)
    stop = f"--trainer.callbacks+={{class_path: tests.training.Signal, init_args: {{step: {step}}}}}"
    with kept_handlers():
        assert train.main([*parts, stop]) == 128 + signal.SIGTERM
        assert train.main(parts) == 0
    for name in ("last.ckpt", "best.ckpt"):
        expected, found = (torch.load(folder / name, weights_only=True) for folder in (whole, tmp_path / "run"))
        assert expected["global_step"] == found["global_step"]
        assert expected["lr_schedulers"] == found["lr_schedulers"]
        assert all(torch.equal(value, found["state_dict"][key]) for key, value in expected["state_dict"].items())


def test_averaged_weights_are_saved_and_resumed(photographs: Path, tmp_path: Path) -> None:
    train.main(arguments(photographs, tmp_path / "plain"))
    train.main(arguments(photographs, tmp_path / "whole", EMA))
    parts = arguments(photographs, tmp_path / "parts", EMA, "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*parts, "--trainer.callbacks+=tests.training.Stop"])
    train.main(parts)
    plain, whole, found = (weights(tmp_path / name / "last.ckpt") for name in ("plain", "whole", "parts"))
    assert all(torch.equal(value, found[name]) for name, value in whole.items())
    assert not torch.equal(whole["codec.net.g_a.0.weight"], plain["codec.net.g_a.0.weight"])
