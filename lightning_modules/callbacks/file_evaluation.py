"""Writes what ``train.py test`` codes: files, numbers, and their means in TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_modules.training_module import TrainingModule
from sga.coding import CodedImage
from sga.files import write_atomically
from sga.published import published_point
from sga.runs.evaluation import Evaluation, FileResult, print_evaluation, write_evaluation
from sga.runs.folder import BITSTREAMS, RESULTS


class FileEvaluation(pl.Callback):
    """Callback that writes ``bitstreams/NAME.bin`` per image and, at the end, the results of all images.

    The results are ``results.csv``, ``summary.json``, a printed table, and ``test/*`` scalars; the first rank writes those of all
    ranks. The data module has the names of all images in ``test_names``; rank r of n tests those with numbers r, r + n, r + 2 n
    and so on.

    Args:
        output: Folder of the test.
    """

    def __init__(self, output: Path) -> None:
        self.output = Path(output)
        self.step = 0
        self.failed: list[str] = []

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Mapping[str, Any]) -> None:
        self.step = int(checkpoint["global_step"])

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.names: list[str] = trainer.datamodule.test_names  # type: ignore[attr-defined]
        self.results: dict[str, FileResult] = {}
        (self.output / BITSTREAMS).mkdir(parents=True, exist_ok=True)
        self.former = _names(self.output / RESULTS)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        if outputs is None:
            return
        coded: CodedImage = outputs["coded"]
        name = self.names[trainer.global_rank :: trainer.world_size][batch_idx]
        write_atomically(self.output / BITSTREAMS / f"{name}.bin", coded.file)
        self.results[name] = FileResult(
            image=name,
            height=coded.image.shape[-2],
            width=coded.image.shape[-1],
            quality=coded.quality,
            bpp_estimated=outputs["bpp_estimated"],
            # Computed from the PSNR in the row, as earlier versions did: the MSE itself gives other last digits.
            rd_loss=replace(coded.quality, mse=None).loss(pl_module.objective),
        )

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        gathered = [self.results]
        if trainer.world_size > 1:
            gathered = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self.results)
        if not trainer.is_global_zero:
            return
        results = {name: result for part in gathered for name, result in part.items()}
        point = published_point(pl_module.codec, pl_module.objective)
        ordered = [results[name] for name in self.names if name in results]
        self.failed = [name for name in self.names if name not in results]
        if not ordered:
            return  # what an earlier test has left stays
        evaluation = Evaluation(ordered, pl_module.objective, point)
        write_evaluation(evaluation, self.output, {"checkpoint": str(trainer.ckpt_path), "step": self.step})
        for name in self.former.difference(results):  # of an earlier test, of other images
            (self.output / BITSTREAMS / f"{name}.bin").unlink(missing_ok=True)
        print_evaluation(evaluation)
        print(f"files and numbers: {self.output}")
        means = {**evaluation.means(), "rd_loss_of_means": evaluation.rd_loss_of_means()}
        for logger in trainer.loggers:
            logger.log_metrics({f"test/{name}": value for name, value in means.items() if value is not None}, self.step)
            logger.save()


def _names(results: Path) -> set[str]:
    """Names of the images of a ``results.csv``; none where there is no such file."""
    if not results.is_file():
        return set()
    with results.open(newline="") as file:
        return {row["image"] for row in csv.DictReader(file) if Path(row.get("image") or "..").name == row["image"]}
