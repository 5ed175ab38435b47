from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import train
from lightning_modules.callbacks import published_points
from lightning_modules.callbacks.validation_metrics import ValidationMetrics
from lightning_modules.training_module import TrainingModule
from sga.codecs import Codec, FactorisedPriorCodec, MeanScaleHyperpriorCodec, Prior, Quantised, ScaleHyperpriorCodec
from sga.images import pad, to_float
from sga.latent_channel import latent_panels, telling_channel
from tests.conftest import random_codec
from tests.training import arguments

KILLED_AT = 5
OF_PIXELS = ("bpp", "psnr_db", "ms_ssim", "ms_ssim_db", "psnr_y_db")
Batch = tuple[Tensor, Tensor]


def events_of(output: Path) -> EventAccumulator:
    events = EventAccumulator(str(output / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def steps(events: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in events.Scalars(tag)]


class Kill(pl.Callback):
    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == KILLED_AT:
            raise RuntimeError("killed")


def test_a_resumed_run_has_one_curve_with_the_published_point_and_pictures(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_points, "KODAK", {path.stem for path in pictures.iterdir()})
    monkeypatch.setattr(published_points, "whole_kodak", lambda pixels: set(pixels) == published_points.KODAK)
    output = tmp_path / "run"
    settings = arguments(pictures, output, "--data.valid", str(pictures), "--checkpoint_every=3")
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*settings, "--trainer.callbacks+=tests.test_training_callbacks.Kill"])
    assert steps(events_of(output), "train/loss") == list(range(KILLED_AT))  # two of them after the checkpoint
    train.main(settings)
    events = events_of(output)
    assert steps(events, "train/loss") == list(range(6))
    assert steps(events, "lr-Adam/codec") == list(range(6))
    for name in ("valid/rd_loss", "valid/rd_loss_of_means", "published/rd_loss", "published/bpp", "published/psnr_db"):
        assert steps(events, name) == [1, 3, 5], name
    assert [event.value for event in events.Scalars("published/rd_loss")] == pytest.approx([0.91817] * 3, abs=1e-5)
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"^published/rd_loss$" in layout and b"^valid/rd_loss_of_means$" in layout
    assert {"latents/1_image", "latents/2_y", "latents/3_sigma", "latents/4_whitened"} <= set(events.Tags()["images"])
    for name, least, most in (
        ("throughput/images_per_second", 0.0, 1e6),
        ("throughput/data_wait", 0.0, 1.0),
        ("memory/peak_gib", 0.05, 1e3),
    ):
        values = [event.value for event in events.Scalars(name)]
        assert values and all(least < value <= most for value in values), name


@pytest.mark.parametrize("lmbda", [0.013, 0.02])  # published, but these are not Kodak's images; and not published
def test_what_does_not_compare_has_no_line(lmbda: float, pictures: Path, tmp_path: Path) -> None:
    train.main(arguments(pictures, tmp_path, "--data.valid", str(pictures), f"--model.lmbda={lmbda}", "--trainer.max_steps=2"))
    events = events_of(tmp_path)
    assert "valid/rd_loss" in events.Tags()["scalars"] and "custom_scalars__config__" not in events.Tags()["tensors"]
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("published/")]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ScaleHyperpriorCodec, ["image", "y", "sigma", "whitened"]),
        (MeanScaleHyperpriorCodec, ["image", "y", "mu", "sigma", "whitened"]),
        (FactorisedPriorCodec, ["image", "y"]),
    ],
)
@torch.no_grad()
def test_pictures_of_latents(kind: type[Codec], names: list[str], photograph: Tensor) -> None:
    codec = random_codec(kind)
    image = to_float(photograph[:, :200, :300])
    panels = latent_panels(codec, pad(image, 64)[None], image)
    assert list(panels) == names
    assert {panel.shape for _, panel in panels.values()} == {(3, 267, 400)}
    assert {panel.dtype for _, panel in panels.values()} == {torch.uint8}
    if "mu" in names:
        assert panels["whitened"][0].startswith("(y - mu) / sigma")
    # y has 13 rows and 19 columns of the true image, and 0 is the gray in the middle.
    y, picture = codec.analyse(pad(image, 64)[None]).y[0, :, :13, :19], panels["y"][1][0].float()
    channel = int(panels["y"][0].split()[2].rstrip(":"))
    found = picture[10::21, 10::21][:13, :19]
    assert np.corrcoef(found.flatten(), y[channel, : found.shape[0], : found.shape[1]].flatten())[0, 1] > 0.9


def test_the_channel_is_the_one_whose_scales_tell_most() -> None:
    torch.manual_seed(0)
    scales = torch.full((1, 3, 8, 8), 20.0)
    scales[:, 1, :4] = 0.2  # fewer bits than the others, and half of them saved by knowing where
    y_hat = (torch.randn(1, 3, 8, 8) * scales).round()
    assert telling_channel(Quantised(y_hat, None, Prior(scales))) == 1
    assert telling_channel(Quantised(y_hat + 7 * torch.arange(3.0).view(1, 3, 1, 1), None, None)) != 1


def rank_of_two(rank: int, port: int, folder: str, counts: list[list[int]]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.set_num_threads(1)
    found = [validate(images, Path(folder) / str(i), 2, rank) for i, images in enumerate(counts)]
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(found))


def validate(images: list[int], folder: Path, world: int, rank: int) -> dict[str, float]:
    """Two steps and two validations on this rank's share of the images; what Lightning holds at the end."""
    torch.manual_seed(0)
    still: Any = dict.fromkeys(("learning_rate", "auxiliary_learning_rate", "final_learning_rate"), 1e-12)
    module = TrainingModule(ScaleHyperpriorCodec(N=8, M=12), **still)
    generator = torch.Generator().manual_seed(1)
    everything: list[Batch] = [(torch.rand(1, 3, 192, 192, generator=generator), torch.tensor([[170, 165]])) for _ in images]
    nothing: Batch = (torch.zeros(0, 3, 64, 64), torch.tensor([[64, 64]]))
    best = ModelCheckpoint(folder, "best", "valid/rd_loss")
    trainer = pl.Trainer(
        max_steps=2,
        limit_train_batches=1,
        accelerator="cpu",
        strategy="ddp" if world > 1 else "auto",
        devices=world,
        plugins=[LightningEnvironment()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[ValidationMetrics(), best],
    )
    crops: Any = torch.utils.data.DataLoader([torch.zeros(1, 3, 64, 64)], batch_size=None)
    share = everything[rank::world] or [nothing]
    trainer.fit(module, crops, torch.utils.data.DataLoader(share, batch_size=None))  # type: ignore[arg-type]
    values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("valid/")}
    assert best.best_model_score is not None
    return {**values, "best": float(best.best_model_score)}


def test_two_ranks_with_unequal_shares_agree_with_one(tmp_path: Path) -> None:
    counts = [[0, 1, 2], [0]]  # two images and one; one image and none
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank_of_two, (port, str(tmp_path), counts), nprocs=2)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    for i, images in enumerate(counts):
        alone = validate(images, tmp_path / f"alone{i}", 1, 0)
        assert set(alone) == {f"valid/{name}" for name in ("rd_loss", "rd_loss_of_means", *OF_PIXELS)} | {"best"}
        assert ranks[0][i] == pytest.approx(alone, rel=1e-5)
