"""Checkpoints read: ours and CompressAI's (examples, zoo, old and new key names, with or without coding tables).

Constants that CompressAI registers as buffers (bounds, pedestals, masks) come from the code and never from a file: in a
half-precision file they have underflowed to 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from compressai.zoo.pretrained import load_pretrained
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sga.codecs.base import TRANSFORMS, Codec
from sga.codecs.tables import CDF, CDF_LENGTH, with_padding
from sga.distortion import DistortionName
from sga.files import home

CONSTANTS = (".pedestal", ".bound", ".target", ".scale_bound", ".mask")
PREFIXES = ("codec.net.", "module.", "net.")
ZOO = "zoo:"
LMBDAS: dict[DistortionName, tuple[float, ...]] = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms_ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}
"""Lambda of each quality of CompressAI from 1 to 8 (its models of Cheng et al. 2020 end at 6)."""
EMBEDDED = "embedded"
"""Stands for the checkpoint that ships with the project."""
EMBEDDED_PATH = home() / "checkpoints" / "scale_hyperprior_mse_lmbda0.013.safetensors"

State = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its message names the file and says why."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint's state dict, in CompressAI's present names and fp32, and what it says of its training."""

    state: State
    lmbda: float | None
    distortion: DistortionName


def load_weights(codec: Codec, checkpoint: str | Path) -> list[str]:
    """Loads the weights of a checkpoint, without its coding tables, into a codec that is to be trained.

    The checkpoint may be of another architecture: of it, :meth:`Codec.shared_weights` is taken.

    Returns:
        The names of the codec's parameters that the checkpoint does not have; they are as they were.

    Raises:
        CheckpointError: As :func:`sga.loading.load_codec`, or the transforms have other sizes.
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


def codec_spec(codec: Codec) -> dict[str, Any]:
    """Class and sizes of a codec, in plain types."""
    return {"class": type(codec).__name__, **codec.sizes}


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


def load_state(codec: Codec, state: State, checkpoint: str | Path) -> None:
    """Loads a whole state dict, but for the constants, which come from the code.

    Raises:
        CheckpointError: It does not fit; the message names ``checkpoint``.
    """
    own = {key: value for key, value in codec.net.state_dict().items() if key.endswith(CONSTANTS)}
    try:
        codec.net.load_state_dict({**state, **own})
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: weights do not fit {codec_spec(codec)}: {error}") from error


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Tensors and what is known of the training."""
    try:
        with safe_open(path, "pt") as file:
            raw, known = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    for key, value in raw.items():
        if key.endswith(CDF) and value.ndim == 1:
            try:
                raw[key] = with_padding(value, raw[key.replace(CDF, CDF_LENGTH)])
            except (ValueError, KeyError) as error:
                raise CheckpointError(f"{path}: damaged coding tables: export it again from its training") from error
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
    distortion: DistortionName = "mse" if metric == "mse" else "ms_ssim"
    return CheckpointFile(state, LMBDAS[distortion][level - 1], distortion)
