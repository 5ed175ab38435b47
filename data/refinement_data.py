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

from data.folders import unique_names
from data.named_sets import images_of, sha256_of
from data.samples import sample_paths
from sga.images import ImageError, image_size, padded_size, read_image
from sga.runs.folder import is_report, is_run

SAMPLES = "samples"


@dataclass(frozen=True)
class ImageFile:
    """An image of the job.

    Attributes:
        name: Unique in the job; of its results.
        path: Of the file.
    """

    name: str
    path: Path

    def sha256(self) -> str:
        """Of the file's bytes, in hexadecimal digits."""
        return sha256_of(self.path)


@dataclass(frozen=True)
class RefinementBatch:
    """Images that are refined together.

    Attributes:
        files: The images that could be read.
        originals: Their pixels, uint8 ``[3, H, W]``, on the CPU.
        failures: Names of those that could not, and why.
    """

    files: list[ImageFile]
    originals: list[Tensor]
    failures: dict[str, str]


class RefinementBatches(Dataset[RefinementBatch]):
    """A dataset whose items are whole batches, so that a Trainer that shards items keeps images of one size together."""

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
    """Images of a folder for ``refine.py``.

    Args:
        root: A folder, searched at any depth but not in runs of ``refine.py``, or one file; ``samples``: the embedded
            photographs; ``kodak``, ``tecnick`` or ``clic``: what ``python -m data.fetch`` has fetched.
        batch_size: Images refined together; only those of one padded size are. 1 is best on a CPU.
        limit: Refine the first so many images only.
        workers: Processes that read ahead.
        shard: ``I/N``, I from 0: of N processes that know nothing of one another, the share of one. Every N-th image is of it.

    Raises:
        ValueError: ``batch_size`` or ``limit`` is below 1, ``shard`` is none, or a named set is not whole.
        FileNotFoundError: ``root`` does not exist, holds no image or has not been fetched.
    """

    def __init__(
        self, root: str = SAMPLES, batch_size: int = 1, limit: int | None = None, workers: int = 0, shard: str | None = None
    ) -> None:
        super().__init__()
        if batch_size < 1 or (limit is not None and limit < 1):
            raise ValueError("data.batch_size and data.limit must be at least 1")
        self.paths = sample_paths() if root == SAMPLES else outside_runs(images_of(root), Path(root))
        self.finished: frozenset[str] = frozenset()
        self.batch_size, self.limit, self.workers = batch_size, limit, workers
        self.shard = parse_shard(shard) if shard is not None else None

    @property
    def files(self) -> list[ImageFile]:
        """The images of the job."""
        named = zip(unique_names(self.paths), self.paths, strict=True)
        return [ImageFile(name, path) for name, path in named][: self.limit]

    @property
    def share(self) -> list[ImageFile]:
        """The images of :attr:`shard`, whatever is finished of the job: other processes may be at work on theirs."""
        return share_of(self.files, self.shard)

    def predict_dataloader(self) -> DataLoader[RefinementBatch]:
        """This rank's part of the share, one :class:`RefinementBatch` an item, without the :attr:`finished` images."""
        batches = self._batches([file for file in self.share if file.name not in self.finished])
        if self.trainer is not None:
            # A rank without an image gets an empty batch: every rank must meet the others at the same barriers.
            batches = batches[self.trainer.global_rank :: self.trainer.world_size] or [[]]
        return DataLoader(RefinementBatches(batches), batch_size=None, num_workers=self.workers)

    @property
    def _stride(self) -> int:
        """Sides become multiples of it: the decoder of a file assumes the codec's own."""
        return int(self.trainer.lightning_module.codec.stride) if self.trainer else 64  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: RefinementBatch, device: torch.device, dataloader_idx: int) -> RefinementBatch:
        """Leaves the batch alone: photographs go to the device padded, and ``predict_step`` does both."""
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
    """Without the pictures that runs of ``refine.py``, and reports on them, have left under ``root``.

    Raises:
        FileNotFoundError: None is left.
    """
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(root)}
    made = {folder for folder in folders if is_run(folder) or is_report(folder)}
    left = [path for path in paths if made.isdisjoint(path.parents)]
    if not left:
        raise FileNotFoundError(f"all images under {root} are those of a run or a report: name the folder of the photographs")
    return left


def share_of(files: Sequence[ImageFile], shard: tuple[int, int] | None) -> list[ImageFile]:
    """Files of the I-th of N processes, ``shard`` being ``(I, N)``: every N-th, from the I-th on; all where it is ``None``."""
    index, count = shard or (0, 1)
    return list(files[index::count])


def parse_shard(shard: str) -> tuple[int, int]:
    """``"2/8"`` as (2, 8).

    Raises:
        ValueError: It is no such pair, or not 0 <= I < N.
    """
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"data.shard must be I/N with I from 0 to N - 1, not {shard}")
    return int(index), int(count)
