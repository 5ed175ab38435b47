"""CompressAI's published models, by names such as ``zoo:bmshj2018-hyperprior/mse/4``.

CompressAI's own loader executes what a file holds and does not look at its checksum. Here the file is downloaded by the project,
its SHA-256 must begin with the digits in its name, also that of a file which is already there, and only weights are read from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from sga.codecs.checkpoint_files import CheckpointError, CheckpointFile, read_file
from sga.distortion import DistortionName
from sga.download import download, download_progress
from sga.files import sha256_of

ZOO = "zoo:"
LMBDAS: dict[DistortionName, tuple[float, ...]] = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms_ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}
"""Lambda of each quality of CompressAI from 1 to 8 (its models of Cheng et al. 2020 end at 6)."""


@dataclass(frozen=True)
class ZooModel:
    """A published model.

    Attributes:
        architecture: CompressAI's name of the architecture.
        distortion: Distortion that it was trained for.
        lmbda: Lambda that it was trained with.
        url: Address of its file.
    """

    architecture: str
    distortion: DistortionName
    lmbda: float
    url: str

    @property
    def digits(self) -> str:
        """First digits of the file's SHA-256, from its name."""
        found = re.search(r"-([0-9a-f]{8,64})\.", PurePosixPath(self.url).name)
        if found is None:
            raise CheckpointError(f"{self.url}: its name has no checksum")
        return found[1]

    @property
    def path(self) -> Path:
        """Where the file is kept: where PyTorch's and CompressAI's own downloads are."""
        return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(self.url).name


def zoo_model(name: str) -> ZooModel:
    """The model of a name; nothing is downloaded.

    Raises:
        CheckpointError: There is none of this name.
    """
    from compressai.zoo.image import model_urls

    try:
        architecture, metric, quality = name.removeprefix(ZOO).split("/")
        url = model_urls[architecture][metric][int(quality)]
    except (ValueError, KeyError):
        raise CheckpointError(f"{name}: expected zoo:ARCHITECTURE/METRIC/QUALITY, as zoo:bmshj2018-hyperprior/mse/4") from None
    distortion: DistortionName = "mse" if metric == "mse" else "ms_ssim"
    return ZooModel(architecture, distortion, LMBDAS[distortion][int(quality) - 1], url)


def read_zoo(name: str) -> CheckpointFile:
    """A published model, downloaded at its first use.

    Raises:
        CheckpointError: There is none of this name, it cannot be had, or its file is another than was published.
    """
    model = zoo_model(name)
    try:
        if not model.path.is_file():
            model.path.parent.mkdir(parents=True, exist_ok=True)
            with download_progress() as progress:
                download(model.url, model.path, model.digits, progress)
        elif not sha256_of(model.path).startswith(model.digits):
            raise CheckpointError(f"{model.path} is not the published file of {name} (wrong SHA-256); it was not read: delete it")
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{name} cannot be had (it is downloaded at first use): {error}") from error
    return CheckpointFile(read_file(model.path).state, model.lmbda, model.distortion)
