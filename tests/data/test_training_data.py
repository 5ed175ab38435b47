from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.demos.boring_classes import BoringModel
from torch import Tensor

import train
from data import workers
from data.samples import sample_paths
from data.training_data import TrainingDataModule, WholeImages


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sample_paths():
        (folder / path.name).symlink_to(path)
    return folder


class Recorder(BoringModel):
    """Keeps the batches of a fit."""

    codec = SimpleNamespace(stride=64)

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        self.batches.append(batch)
        return self.layer(batch[:, 0, 0, :32]).mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, size = batch
        assert x.dtype == torch.float32 and x.shape[-1] % 64 == 0 and size.shape == (1, 2)


def fit(data: TrainingDataModule, steps: int, checkpoint: Path | None = None) -> tuple[Recorder, pl.Trainer]:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", enable_checkpointing=False, use_distributed_sampler=False, **quiet
    )
    model = Recorder()
    trainer.fit(model, data, ckpt_path=checkpoint)
    return model, trainer


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_resumed_run_sees_the_crops_it_would_have(in_memory: bool, photographs: Path, tmp_path: Path) -> None:
    def data() -> TrainingDataModule:
        settings: dict[str, Any] = {"batch_size": 3, "steps_per_epoch": 2, "in_memory": in_memory, "workers": 1}
        return TrainingDataModule({str(photographs): 1.0}, valid=photographs, crop_size=64, **settings)

    whole, _ = fit(data(), 5)
    first, trainer = fit(data(), 3)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second, _ = fit(data(), 5, tmp_path / "last.ckpt")
    assert len(whole.batches) == 5
    for expected, found in zip(whole.batches, [*first.batches, *second.batches], strict=True):
        assert found.shape == (3, 3, 64, 64) and found.dtype == torch.float32 and found.max() <= 1
        assert torch.equal(expected, found)
    assert len({batch.sum().item() for batch in whole.batches}) == 5


def ranks(world: int, **settings: Any) -> list[TrainingDataModule]:
    modules = []
    for rank in range(world):
        module = TrainingDataModule(**settings)
        trained = SimpleNamespace(codec=SimpleNamespace(stride=64))
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=-1))
        counts = {"global_rank": rank, "world_size": world, "num_devices": world}
        module.trainer = SimpleNamespace(strategy=strategy, fit_loop=fit_loop, lightning_module=trained, **counts)  # type: ignore[assignment]
        modules.append(module)
    return modules


def test_ranks_share_whole_images_without_duplicates(photographs: Path) -> None:
    for stage, loader in (("validate", "val_dataloader"), ("test", "test_dataloader")):
        modules = ranks(3, valid=photographs)
        for module in modules:
            module.setup(stage)
        shares = [[path.name for path in getattr(module, loader)().dataset.paths] for module in modules]
        assert shares == [["astronaut.png", "rocket.jpg"], ["chelsea.png"], ["coffee.png"]]
    module = ranks(6, valid=photographs)[5]
    module.setup("validate")
    ((x, size),) = module.val_dataloader()  # nothing, so that the rank meets the others at their barriers
    assert x.shape == (0, 3, 64, 64) and size.shape == (1, 2)


def test_ranks_share_one_sequence_of_crops(photographs: Path) -> None:
    (alone,) = ranks(1, root=photographs, batch_size=4, steps_per_epoch=3)
    pair = ranks(2, root=photographs, batch_size=2, steps_per_epoch=3)
    for module in (alone, *pair):
        module.setup("fit")
    batches, first, second = (list(module.train_dataloader()) for module in (alone, *pair))
    assert batches == [[a, b, c, d] for (a, c), (b, d) in zip(first, second, strict=True)]


def test_test_images_have_names_and_fall_back_to_those_of_validation(photographs: Path, tmp_path: Path) -> None:
    for name in ("a/one.png", "b/one.png", "b/two.png"):
        path = tmp_path / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70, 50)).save(path)
    module = TrainingDataModule(valid=photographs, test=tmp_path / "test")
    module.setup("test")
    assert module.test_names == ["a_one_png", "b_one_png", "two"]
    assert module.test_paths == [tmp_path / "test" / name for name in ("a/one.png", "b/one.png", "b/two.png")]
    x, size = next(iter(module.test_dataloader()))
    assert x.shape == (1, 3, 64, 128) and size.tolist() == [[50, 70]]
    fallback = TrainingDataModule(valid=photographs)
    fallback.setup("test")
    assert fallback.test_names == ["astronaut", "chelsea", "coffee", "rocket"]


def test_whole_images_are_padded() -> None:
    x, size = WholeImages(sample_paths(), 64)[1]
    assert size.tolist() == [[300, 451]] and x.shape == (1, 3, 320, 512)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 100}, "multiple of 64"),
        ({"batch_size": 0}, "at least 1"),
        ({"steps_per_epoch": 0}, "at least 1"),
        ({"workers": -1}, "at least 0"),
        ({"min_scale": 0.0}, "above 0"),
        ({"min_scale": 1.5}, "at most 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingDataModule(tmp_path, **settings)


def test_what_a_command_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no images"):
        TrainingDataModule(tmp_path).setup("fit")
    for stage, option in (("fit", "--data.root"), ("test", "--data.test")):
        with pytest.raises(ValueError, match=option):
            TrainingDataModule().setup(stage)


@pytest.mark.parametrize(
    ("arguments", "root"),
    [
        (["--data.root", "photos"], "  root: photos"),
        (["--data.root", "[photos, more]"], "  root:\n  - photos\n  - more"),
        (["--data.root+=photos", "--data.root+=more"], "  root:\n  - photos\n  - more"),
        (["--data.root", "{photos: 3, more: 1}"], "  root:\n    photos: 3.0\n    more: 1.0"),
    ],
)
def test_a_root_on_the_command_line(arguments: list[str], root: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[2] / "configs/train/scale_hyperprior.yaml"
    with pytest.raises(SystemExit) as stop:
        train.main(["fit", "--config", str(config), *arguments, "--print_config"])
    assert stop.value.code == 0
    assert root in capsys.readouterr().out


@pytest.mark.parametrize(("free", "fits"), [(2_000_000, False), (3_000_000, True)])
def test_workers_that_the_shared_memory_cannot_hold_are_refused(
    free: int, fits: bool, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SHARED_MEMORY", photographs)  # any folder
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    data = TrainingDataModule(photographs, crop_size=128, batch_size=16, workers=1, in_memory=False)
    if fits:  # three batches of 16 crops of 3 x 128 x 128
        data.setup("fit")
        return
    with pytest.raises(ValueError, match=r"1 workers take up to 2 MB .* where 2 MB are free: set fewer with --data\.workers \(0"):
        data.setup("fit")
