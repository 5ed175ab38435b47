"""A codec ready to code, from a checkpoint or from a training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from sga.checks import require_positive
from sga.codecs import Codec
from sga.codecs.base import TRANSFORMS
from sga.codecs.checkpoint import CheckpointError, load_state, model_hash, read_checkpoint
from sga.codecs.checkpoint_files import State
from sga.codecs.tables import check_tables, has_tables
from sga.distortion import DistortionName
from sga.rate_distortion import Objective

LEAST_WEIGHTS = 2**19
"""Below so many squared channels, 724 of them, a model of any file is small enough to be made."""


@dataclass(frozen=True)
class LoadedCodec:
    """A codec ready to code.

    Attributes:
        codec: Codec in evaluation mode; no parameter requires a gradient, coding tables are made.
        lmbda: Lambda that it was trained with, where the checkpoint says.
        distortion: Distortion that it was trained for; where the checkpoint does not say, ``mse``.
        model_hash: Name of weights and tables in files; see :func:`model_hash`.
    """

    codec: Codec
    lmbda: float | None
    distortion: DistortionName
    model_hash: bytes

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.codec.device

    def to(self, device: torch.device | str) -> LoadedCodec:
        """The same codec on another device; the weights are moved, not copied."""
        self.codec.to(device)
        return self

    def objective(self, lmbda: float | None = None, distortion: DistortionName | None = None) -> Objective:
        """The loss of a refinement: the one that the codec was trained on, but for what is given.

        Args:
            lmbda: Weight of the distortion, above 0.
            distortion: Distortion; another than that of the training needs a lambda too.

        Raises:
            ValueError: The lambda is out of range, or none is given and the checkpoint's is not known or does not count.
        """
        distortion = distortion or self.distortion
        if lmbda is not None:
            require_positive(lmbda=lmbda)
            return Objective(float(lmbda), distortion)
        if distortion != self.distortion:
            raise ValueError(f"lambdas for MSE and MS-SSIM do not compare: give a lambda (lmbda) with the distortion {distortion}")
        if self.lmbda is None:
            raise ValueError("the checkpoint does not say the lambda it was trained with: give one (lmbda)")
        return Objective(self.lmbda, distortion)


def load_codec(checkpoint: str | Path) -> LoadedCodec:
    """The codec of a checkpoint.

    Args:
        checkpoint: ``embedded``, a ``.safetensors`` file of :func:`export_safetensors`, a Lightning checkpoint of
            ``train.py``, a file of CompressAI (a state dict, or one under ``state_dict``, ``network`` or ``model_state_dict``), or
            ``zoo:ARCHITECTURE/METRIC/QUALITY``, such as ``zoo:bmshj2018-hyperprior/mse/4``, which is downloaded once.

    Raises:
        CheckpointError: The file is missing, damaged, of a model that the project has no adapter for, or holds more than weights
            and plain types; its weights are not finite; its metadata or its coding tables are none. Nothing in it is executed.
    """
    file = read_checkpoint(checkpoint)
    codec = _untrained(file.state, checkpoint)
    load_state(codec, file.state, checkpoint)
    codec.requires_grad_(False).eval()
    try:
        if not has_tables(file.state):
            codec.make_tables()
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint}: no coding tables can be made of its densities: take an earlier checkpoint") from error
    try:
        check_tables(codec.net)
    except ValueError as error:
        remedy = "export it again from its training, or save it without its tables, which are then made anew"
        raise CheckpointError(f"{checkpoint}: {error}: {remedy}") from error
    return LoadedCodec(codec, file.lmbda, file.distortion, model_hash(codec))


def _untrained(state: State, checkpoint: str | Path) -> Codec:
    """A codec of the architecture and the sizes of a state dict.

    Raises:
        CheckpointError: There is no adapter for it, or it claims more channels than it holds weights of.
    """
    convolutions = [value for name, value in state.items() if name.startswith(TRANSFORMS) and value.ndim == 4]
    widest, held = max((max(value.shape[:2]) for value in convolutions), default=0), sum(value.numel() for value in state.values())
    if widest**2 > max(held, LEAST_WEIGHTS):
        raise CheckpointError(f"{checkpoint}: a layer of {widest} channels, and not the weights of such a model: it is damaged")
    for adapter in Codec.adapters():
        try:
            codec = adapter.from_state(state)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint}: {error}") from error
        except (RuntimeError, ArithmeticError, IndexError, TypeError) as error:
            raise CheckpointError(f"{checkpoint}: its weights have the shapes of no model: it is damaged") from error
        if codec is not None:
            return codec
    known = ", ".join(adapter.__name__ for adapter in Codec.adapters())
    raise CheckpointError(f"{checkpoint}: weights of an unknown architecture (known: {known})")


def coding_copy(codec: Codec, lmbda: float, distortion: DistortionName) -> LoadedCodec:
    """A copy of a codec in training, ready to code: what :func:`load_codec` makes of its checkpoint.

    The codec itself gets no tables: they may move its medians, and its checkpoints must not hold them.

    Raises:
        ValueError: No coding tables can be made of its densities, as its training diverged.
    """
    prepared = copy.deepcopy(codec).float().cpu().requires_grad_(False).eval()
    prepared.make_tables()  # on the CPU: another device's tables would differ in a last digit, and the hash with them
    check_tables(prepared.net)
    return LoadedCodec(prepared.to(codec.device), lmbda, distortion, model_hash(prepared))
