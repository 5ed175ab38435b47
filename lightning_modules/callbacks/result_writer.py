"""Files of a refinement, written as soon as each image is finished."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from data.refinement_data import RefinementBatch
from lightning_modules.refinement_module import RefinedImage, RefinementModule
from sga.bitstream import MAX_OVERHEAD_BYTES
from sga.files import write_atomically
from sga.images import write_image
from sga.refinement.settings import step_dtype
from sga.runs.claims import Claims
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS, FAILURES, IMAGES, RECONSTRUCTIONS
from sga.runs.results import FILES, ImageResult, read_finished, write_result

TOLERATED_GAP = 0.01
"""Largest relative difference of coded and estimated bits without a warning."""


class ResultWriter(pl.Callback):
    """Callback that writes ``bitstreams/``, ``bitstreams_base/``, ``reconstructions/`` and, last, ``images/NAME.json``.

    The reason of a failure goes to ``failures/NAME.txt``.

    Args:
        output: Folder of the run.
        fingerprint: Hash of the settings, stored with each result; see :attr:`lightning_modules.job.Job.fingerprint`.
    """

    def __init__(self, output: Path, fingerprint: str) -> None:
        self.output = Path(output)
        self.fingerprint = fingerprint

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for folder in (BITSTREAMS, BASE_BITSTREAMS, RECONSTRUCTIONS, IMAGES, FAILURES):
            (self.output / folder).mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        assert isinstance(pl_module, RefinementModule)
        assert isinstance(batch, RefinementBatch)
        images: Sequence[RefinedImage] = outputs
        for image in images:
            try:
                self._write(image, pl_module)
            except OSError as error:
                pl_module.failures[image.name] = f"cannot be written: {error}"
        for name in (*batch.failures, *(file.name for file in batch.files)):
            if name in pl_module.failures:
                with contextlib.suppress(OSError):  # where nothing can be written, the end of the job still says it
                    write_atomically(self.output / FAILURES / f"{name}.txt", pl_module.failures[name].encode())

    def _write(self, image: RefinedImage, module: RefinementModule) -> None:
        files = {BITSTREAMS: image.photograph.file, BASE_BITSTREAMS: image.photograph.base.file}
        for folder, content in files.items():
            target = self.output / folder / f"{image.name}.bin"
            write_atomically(target, content)
            if target.read_bytes() != content:
                raise OSError(f"{target} does not hold what was written")
        write_image(image.photograph.image, self.output / RECONSTRUCTIONS / f"{image.name}.png")
        result = image_result(image, module)
        pixels = result.height * result.width
        payload_bpp = 8 * (len(image.photograph.file) - MAX_OVERHEAD_BYTES) / pixels
        # Under 1000 bytes, the bytes with which the coder ends its strings exceed the tolerance.
        if len(image.photograph.file) > 1000 and abs(payload_bpp / result.bpp_estimated - 1) > TOLERATED_GAP:
            rank_zero_warn(f"{image.name}: {payload_bpp:.4f} coded bits per pixel, {result.bpp_estimated:.4f} estimated")
        arithmetic = str(step_dtype(module.settings.precision, module.device)).removeprefix("torch.")
        identity = {
            "fingerprint": self.fingerprint,
            "source": image.source,
            "model_hash": module.loaded.model_hash.hex(),
            "steps_in": arithmetic,
            FILES: {folder: hashlib.sha256(content).hexdigest() for folder, content in files.items()},
        }
        write_result(self.output, result, identity)  # last: from now on the image is finished
        (self.output / FAILURES / f"{image.name}.txt").unlink(missing_ok=True)


class ImageClaims(pl.Callback):
    """Callback that leaves images to the other processes of the same job that work on them; see :mod:`sga.runs.claims`.

    An image that another process has finished since the job began is left alone too.

    Args:
        output: Folder of the run.
    """

    def __init__(self, output: Path) -> None:
        self.output = Path(output)
        self._claims: Claims | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RefinementModule)
        self._claims = Claims(self.output)
        pl_module.take = self._take

    def _take(self, name: str) -> bool:
        assert self._claims is not None
        if not self._claims.take(name):
            return False
        if read_finished(self.output, name) is None:
            return True
        self._claims.release(name)
        return False

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        assert self._claims is not None
        for file in batch.files:
            self._claims.release(file.name)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.close()

    def close(self) -> None:
        """Gives all images back."""
        if self._claims is not None:
            self._claims.close()


class EndOnSigterm(pl.Callback):
    """Callback that ends a refinement at once on SIGTERM, with exit code 143; files of finished images are whole.

    Lightning's own handler would continue to the end of the job.
    """

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def end(signum: int, frame: FrameType | None) -> None:
            launcher = trainer.strategy.launcher
            if launcher is not None:  # it holds the processes that this one has started
                launcher.kill(signum)
            raise SystemExit(128 + signum)

        signal.signal(signal.SIGTERM, end)


def image_result(image: RefinedImage, module: RefinementModule) -> ImageResult:
    """The row of ``results.csv`` of a refined image."""
    photograph, objective = image.photograph, image.photograph.objective
    before, after = (coded.quality.loss(objective) for coded in (photograph.base, photograph.refined))
    assert before is not None and after is not None  # an image without a loss has failed
    return ImageResult(
        image=image.name,
        height=photograph.original.shape[-2],
        width=photograph.original.shape[-1],
        method=module.settings.rounding.name,
        steps=module.settings.steps,
        lmbda=float(objective.lmbda),
        distortion=objective.distortion,
        base=photograph.base.quality,
        rd_loss_base=before,
        refined=photograph.quality,
        rd_loss=after,
        bpp_estimated=photograph.bpp_estimated,
        best_step=photograph.best_step,
        seconds=photograph.seconds,
    )
