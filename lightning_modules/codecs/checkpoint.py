"""Checkpoints read: ours and CompressAI's (examples, zoo, old and new key names, with or without coding tables).

Constants that CompressAI registers as buffers (bounds, pedestals, masks) come from the code and never from a file: in a
half-precision file they have underflowed to 0.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from compressai.zoo.pretrained import load_pretrained
from pytorch_lightning.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_modules.codecs.base import TRANSFORMS, Codec, Distortion

CDF, CDF_LENGTH = "._quantized_cdf", "._cdf_length"
TABLES = ("._offset", CDF, CDF_LENGTH, ".scale_table")
CONSTANTS = (".pedestal", ".bound", ".target", ".scale_bound", ".mask")
PREFIXES = ("codec.net.", "module.", "net.")
ZOO = "zoo:"
LMBDAS: dict[Distortion, tuple[float, ...]] = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms_ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}
"""Lambda of each quality of CompressAI from 1 to 8 (its models of Cheng et al. 2020 end at 6)."""
EMBEDDED = "embedded"
"""Stands for the checkpoint that ships with the project."""
EMBEDDED_PATH = Path(__file__).parents[2] / "checkpoints" / "scale_hyperprior_mse_lmbda0.013.safetensors"

State = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its message names the file and says why."""


@dataclass(frozen=True)
class LoadedCodec:
    """A codec ready to code.

    Attributes:
        codec: In evaluation mode, no parameter requires a gradient, coding tables made.
        lmbda: The lambda that it was trained with, where the checkpoint says.
        distortion: ``mse`` or ``ms_ssim``: what it was trained for; where the checkpoint does not say, ``mse``.
        model_hash: See :func:`model_hash`.
    """

    codec: Codec
    lmbda: float | None
    distortion: Distortion
    model_hash: bytes


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint's state dict, in CompressAI's present names and fp32, and what it says of its training."""

    state: State
    lmbda: float | None
    distortion: Distortion


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a Lightning checkpoint beside its place and moves it there: a killed process leaves the previous one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.partial")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut leaves an empty file under the name
        temporary.replace(path)


def load_codec(checkpoint: str | Path) -> LoadedCodec:
    """The codec of a checkpoint.

    Args:
        checkpoint: ``embedded``, a ``.safetensors`` file of :func:`export_safetensors`, a Lightning checkpoint of
            ``train.py``, a file of CompressAI (a state dict, or one under ``state_dict``, ``network`` or ``model_state_dict``), or
            ``zoo:ARCHITECTURE/METRIC/QUALITY``, such as ``zoo:bmshj2018-hyperprior/mse/4``, which is downloaded once.

    Raises:
        CheckpointError: The file is missing, damaged, or of a model that the project has no adapter for.
    """
    file = read_checkpoint(checkpoint)
    for adapter in Codec.adapters():
        try:
            codec = adapter.from_state(file.state)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint}: {error}") from error
        if codec is not None:
            break
    else:
        known = ", ".join(adapter.__name__ for adapter in Codec.adapters())
        raise CheckpointError(f"{checkpoint}: weights of an unknown architecture (known: {known})")
    _load(codec, file.state, checkpoint)
    codec.requires_grad_(False).eval()
    if not _has_tables(file.state):
        codec.make_tables()
    return LoadedCodec(codec, file.lmbda, file.distortion, model_hash(codec))


def coding_copy(codec: Codec, lmbda: float, distortion: Distortion) -> LoadedCodec:
    """A copy of a codec in training, ready to code: what :func:`load_codec` makes of its checkpoint.

    The codec itself gets no tables: they may move its medians, and its checkpoints must not hold them.
    """
    prepared = copy.deepcopy(codec).float().cpu().requires_grad_(False).eval()
    prepared.make_tables()  # on the CPU: another device's tables would differ in a last digit, and the hash with them
    return LoadedCodec(prepared.to(codec.device), lmbda, distortion, model_hash(prepared))


def load_weights(codec: Codec, checkpoint: str | Path) -> list[str]:
    """Loads the weights of a checkpoint, without its coding tables, into a codec that is to be trained.

    The checkpoint may be of another architecture: of it, :meth:`Codec.shared_weights` is taken.

    Returns:
        The names of the codec's parameters that the checkpoint does not have; they are as they were.

    Raises:
        CheckpointError: As :func:`load_codec`, or the transforms have other sizes.
    """
    state, own = read_checkpoint(checkpoint).state, dict(codec.net.named_parameters())
    if type(codec).from_state(state) is None:
        state = codec.shared_weights(state)
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    transforms = {name for name in state if name.startswith(TRANSFORMS) and not name.endswith(CONSTANTS)}
    if not transforms or not transforms <= fitting.keys():
        raise CheckpointError(f"{checkpoint}: its weights do not fit {codec_spec(codec)}")
    codec.net.load_state_dict({**codec.net.state_dict(), **fitting})
    return [name for name in own if name not in fitting]


def read_checkpoint(checkpoint: str | Path) -> CheckpointFile:
    """What a checkpoint holds.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if str(checkpoint).startswith(ZOO):
        return _read_zoo(str(checkpoint))
    path = EMBEDDED_PATH if checkpoint == EMBEDDED else Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}")
    raw, known = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for prefix in PREFIXES:
        if any(key.startswith(prefix) for key in raw):
            raw = {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}
    state = load_pretrained({key: value for key, value in raw.items() if isinstance(value, Tensor)})
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    lmbda = known.get("lmbda")
    return CheckpointFile(state, None if lmbda is None else float(lmbda), known.get("distortion", "mse"))


def without_tables(state: Mapping[str, Tensor]) -> State:
    """A state dict whose coding tables are empty, as they are in a model that has not been prepared for coding."""
    return {key: value.new_empty(0) if key.endswith(TABLES) else value for key, value in state.items()}


def codec_spec(codec: Codec) -> dict[str, Any]:
    """Class and sizes of a codec, in plain types."""
    return {"class": type(codec).__name__, "N": int(codec.net.N), "M": int(codec.net.M)}


def without_padding(cdf: Tensor, lengths: Tensor) -> Tensor:
    """The coder's tables ``[tables, longest]`` as one row of what each holds: an eighth of the size."""
    return cdf[torch.arange(cdf.shape[1], device=cdf.device) < lengths[:, None]]


def with_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """The tables again."""
    cdf = values.new_zeros(len(lengths), int(lengths.max()))
    cdf[torch.arange(cdf.shape[1]) < lengths[:, None]] = values
    return cdf


def model_hash(codec: Codec) -> bytes:
    """Six bytes that name the weights and coding tables: a file decodes with the model of its hash and with no other.

    The first bytes of SHA-256 over names, shapes and values, in order of the names.
    """
    digest = hashlib.sha256()
    for name, value in sorted(codec.net.state_dict().items()):
        if not name.endswith(CONSTANTS):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()[:6]


def _load(codec: Codec, state: State, checkpoint: str | Path) -> None:
    own = {key: value for key, value in codec.net.state_dict().items() if key.endswith(CONSTANTS)}
    try:
        codec.net.load_state_dict({**state, **own})
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: weights do not fit {codec_spec(codec)}: {error}") from error


def _has_tables(state: State) -> bool:
    sizes = [value.numel() for key, value in state.items() if key.endswith(CDF)]
    return bool(sizes) and min(sizes) > 0


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Tensors and what is known of the training."""
    try:
        with safe_open(path, "pt") as file:
            raw, known = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    for key, value in raw.items():
        if key.endswith(CDF) and value.ndim == 1:
            raw[key] = with_padding(value, raw[key.replace(CDF, CDF_LENGTH)])
    return raw, known


def _read_torch(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Tensors and what is known of the training."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the unpickler met
        raise CheckpointError(f"{path} is damaged or no checkpoint: {type(error).__name__}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no state dict")
    known = {**content.get("hyper_parameters", {}), **{key: content[key] for key in ("lmbda", "distortion") if key in content}}
    for key in ("state_dict", "network", "model_state_dict"):
        if isinstance(content.get(key), Mapping):
            return content[key], known
    return content, known


def _read_zoo(name: str) -> CheckpointFile:
    from compressai.zoo import image_models

    try:
        architecture, metric, quality = name.removeprefix(ZOO).split("/")
        build, level = image_models[architecture], int(quality)
    except (ValueError, KeyError):
        raise CheckpointError(f"{name}: expected zoo:ARCHITECTURE/METRIC/QUALITY, as zoo:bmshj2018-hyperprior/mse/4") from None
    try:
        state = dict(build(quality=level, metric=metric, pretrained=True).state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name} cannot be had (it is downloaded at first use): {error}") from error
    distortion: Distortion = "mse" if metric == "mse" else "ms_ssim"
    return CheckpointFile(state, LMBDAS[distortion][level - 1], distortion)
