"""The images of a refinement, in batches of one padded size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.folders import folder_given, unique_names
from data.named_sets import images_of
from data.samples import sample_paths
from sga.files import sha256_of
from sga.images import ImageError, image_size, padded_size, read_image
from sga.runs.folder import is_report, is_run

SAMPLES = "samples"


@dataclass(frozen=True)
class ImageFile:
    """An image file of a job.

    Attributes:
        name: Name of the image and of its results, unique in the job.
        path: Path of the file.
    """

    name: str
    path: Path

    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal digits."""
        return sha256_of(self.path)


@dataclass(frozen=True)
class RefinementBatch:
    """Images that are refined together.

    Attributes:
        files: Images that could be read.
        originals: Pixels of each of ``files``, uint8 ``[3, H, W]``, on the CPU.
        failures: Reason for each image that could not be read, by its name.
    """

    files: list[ImageFile]
    originals: list[Tensor]
    failures: dict[str, str]


class RefinementBatches(Dataset[RefinementBatch]):
    """Dataset whose items are whole batches, so that a Trainer that shards items keeps images of one size together."""

    def __init__(self, batches: list[list[ImageFile]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> RefinementBatch:
        files: list[ImageFile] = []
        originals: list[Tensor] = []
        failures: dict[str, str] = {}
        for file in self.batches[index]:
            try:
                originals.append(read_image(file.path))
                files.append(file)
            except ImageError as error:
                failures[file.name] = str(error)
        return RefinementBatch(files, originals, failures)


class RefinementDataModule(pl.LightningDataModule):
    """Data module of ``refine.py``: the images of a folder.

    Args:
        root: Folder of images, searched at any depth except in runs of ``refine.py`` and reports, or one file; ``samples`` for the
            embedded photographs; ``kodak``, ``tecnick`` or ``clic`` for a set that ``python -m data.fetch`` has downloaded.
        batch_size: Number of images refined together, all of one padded size. 1 is best on a CPU.
        limit: Number of images to refine, the first ones; by default all.
        workers: Number of processes that read ahead.
        shard: Share of this process among N independent ones, ``I/N`` with I from 0: every N-th image, from the I-th on.

    Raises:
        ValueError: ``batch_size`` or ``limit`` is below 1, ``root`` is empty, ``shard`` is not ``I/N``, or a named set is
            incomplete.
        FileNotFoundError: ``root`` does not exist, holds no image or has not been fetched.
    """

    def __init__(
        self, root: str = SAMPLES, batch_size: int = 1, limit: int | None = None, workers: int = 0, shard: str | None = None
    ) -> None:
        super().__init__()
        if batch_size < 1 or (limit is not None and limit < 1):
            raise ValueError("data.batch_size and data.limit must be at least 1")
        self.paths = sample_paths() if root == SAMPLES else outside_runs(images_of(root), folder_given(root))
        self.finished: frozenset[str] = frozenset()
        self.batch_size, self.limit, self.workers = batch_size, limit, workers
        self.shard = parse_shard(shard) if shard is not None else None

    @property
    def files(self) -> list[ImageFile]:
        """Images of the job."""
        named = zip(unique_names(self.paths), self.paths, strict=True)
        return [ImageFile(name, path) for name, path in named][: self.limit]

    @property
    def share(self) -> list[ImageFile]:
        """Images of :attr:`shard`, finished or not."""
        return share_of(self.files, self.shard)

    def predict_dataloader(self) -> DataLoader[RefinementBatch]:
        """This rank's part of the share without the :attr:`finished` images, one :class:`RefinementBatch` per item."""
        batches = self._batches([file for file in self.share if file.name not in self.finished])
        if self.trainer is not None:
            # A rank without an image gets an empty batch: every rank must reach the same barriers as the others.
            batches = batches[self.trainer.global_rank :: self.trainer.world_size] or [[]]
        return DataLoader(RefinementBatches(batches), batch_size=None, num_workers=self.workers)

    @property
    def _stride(self) -> int:
        """Stride of the codec: sides are padded to its multiples, as the decoder of a file assumes."""
        return int(self.trainer.lightning_module.codec.stride) if self.trainer else 64  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: RefinementBatch, device: torch.device, dataloader_idx: int) -> RefinementBatch:
        """The batch, unchanged: ``predict_step`` pads the photographs and then moves them to the device."""
        return batch

    def _batches(self, files: list[ImageFile]) -> list[list[ImageFile]]:
        if self.batch_size == 1:
            return [[file] for file in files]
        by_size: dict[tuple[int, int], list[ImageFile]] = defaultdict(list)
        for file in files:
            try:
                size = padded_size(*image_size(file.path), self._stride)
            except ImageError:
                size = (0, 0)  # its batch reports it
            by_size[size].append(file)
        return [
            group[first : first + self.batch_size] for group in by_size.values() for first in range(0, len(group), self.batch_size)
        ]


def outside_runs(paths: Sequence[Path], root: Path) -> list[Path]:
    """The paths without the pictures of runs of ``refine.py`` and of reports under ``root``.

    Raises:
        FileNotFoundError: No path is left.
    """
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(root)}
    made = {folder for folder in folders if is_run(folder) or is_report(folder)}
    left = [path for path in paths if made.isdisjoint(path.parents)]
    if not left:
        raise FileNotFoundError(f"all images under {root} are those of a run or a report: name the folder of the photographs")
    return left


def share_of(files: Sequence[ImageFile], shard: tuple[int, int] | None) -> list[ImageFile]:
    """Files of a shard ``(I, N)``: every N-th, from the I-th on, I from 0; all files where it is ``None``."""
    index, count = shard or (0, 1)
    return list(files[index::count])


def parse_shard(shard: str) -> tuple[int, int]:
    """Numbers I and N of a shard ``I/N``: (2, 8) for ``2/8``.

    Raises:
        ValueError: The text is not of this form, or not 0 <= I < N.
    """
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"data.shard must be I/N with I from 0 to N - 1, not {shard}")
    return int(index), int(count)
