"""Files of checkpoints read into a state dict, ours and CompressAI's (examples, zoo, old and new key names).

A file may be anybody's: nothing in it is executed, it makes no tensor that is larger than itself, and what it says of its training
is checked.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from compressai.zoo.pretrained import load_pretrained
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from sga.codecs.tables import CDF, CDF_LENGTH, TABLES, with_padding
from sga.distortion import DistortionName

CONSTANTS = (".pedestal", ".bound", ".target", ".scale_bound", ".mask")
"""Buffers that come from the code and never from a file: in a half-precision file they have underflowed to 0."""
COMPILED = "_orig_mod."
"""What torch.compile puts into names, wherever a compiled module is."""
PREFIXES = (COMPILED, "codec.net.", "module.", "model.", "network.", "codec.", "net.")
"""What wrappers put before the names of a model's weights; taken off as often as they are there."""
NESTS = ("state_dict", "network", "model_state_dict", "model", "net", "codec")
"""Keys under which the files of training programs hold the state dict."""
DEEPEST = 8
"""Most levels of them."""
LARGEST_OF_DENSITY = 1e5
"""Largest weight of a factorised density: beyond it, its logits overflow and the search for its quantiles would not end."""
LISTED = 5
"""Most names in a message."""

SAVE = "save its weights alone, torch.save(model.state_dict(), FILE)"
"""How to go on with a file that holds more."""

State = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its message names the file and says why."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint's state dict, in CompressAI's present names and fp32, and what it says of its training."""

    state: State
    lmbda: float | None
    distortion: DistortionName


def read_file(path: Path) -> CheckpointFile:
    """What a file holds.

    Raises:
        CheckpointError: The file is missing or damaged, holds more than weights, or weights or metadata are out of range.
    """
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}")
    raw, known = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    lmbda, distortion = _lmbda(known.get("lmbda"), path), _distortion(known.get("distortion"), path)
    tensors = {str(key): value for key, value in raw.items() if isinstance(value, Tensor)}
    state = load_pretrained(_without_prefixes(tensors))
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    _check_values(state, path)
    return CheckpointFile(state, lmbda, distortion)


def _without_prefixes(raw: State) -> State:
    """The weights under a model's own names; where they have a prefix, what has none belongs to something else."""
    while prefix := next((prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in raw)), None):
        raw = {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}
    return {key.replace(COMPILED, ""): value for key, value in raw.items()}


def _check_sizes(content: Mapping[Any, Any], path: Path) -> None:
    """Raises a CheckpointError where tensors are larger than the file, as expanded ones are, or are no plain ones."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {name} is no plain tensor: {SAVE}")
    claimed, held = sum(value.numel() * value.element_size() for value in tensors.values()), path.stat().st_size
    if claimed > held:
        largest = max(tensors, key=lambda name: tensors[name].numel())
        raise CheckpointError(
            f"{path} has {held} bytes and claims {claimed} bytes of weights, most in {largest} {list(tensors[largest].shape)}: "
            "it is damaged, or shares weights: save them with clone()"
        )


def _check_values(state: State, path: Path) -> None:
    """Raises a CheckpointError where weights are not finite."""
    for name, value in state.items():
        if not value.is_floating_point() or name.endswith((*CONSTANTS, *TABLES)):
            continue
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; its training diverged: take an earlier checkpoint")
        if name.startswith("entropy_bottleneck.") and (value.abs() > LARGEST_OF_DENSITY).any():
            raise CheckpointError(f"{path}: {name} holds values beyond {LARGEST_OF_DENSITY:g}; its training diverged")


def _lmbda(value: object, path: Path) -> float | None:
    """The lambda of a file's metadata, a number or the text of one; ``None`` where there is none."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(cast(float, value))
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not (0 < number < math.inf):
        raise CheckpointError(
            f"{path}: its entry lmbda is {_short(value)} and not a number above 0: save the file with the lambda of its training, "
            "or without the entry and give a lambda where it is used"
        )
    return number


def _distortion(value: object, path: Path) -> DistortionName:
    """The distortion of a file's metadata in the project's spelling; ``mse`` where there is none."""
    if value is None:
        return "mse"
    name = value.lower().replace("-", "_") if isinstance(value, str) else ""
    if name not in get_args(DistortionName):
        accepted = ", ".join(get_args(DistortionName))
        raise CheckpointError(
            f"{path}: its entry distortion is {_short(value)} and not one of {accepted}: save the file with one of them, or "
            "without the entry for mse"
        )
    return cast(DistortionName, name)


def _short(value: object) -> str:
    """A value in a message, in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


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
    content = load_inert(path)
    known: dict[str, Any] = {}
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{path} holds no state dict but {type(content).__name__}: {SAVE}")
        settings = content.get("hyper_parameters")
        if settings is not None and not isinstance(settings, Mapping):
            raise CheckpointError(f"{path}: its entry hyper_parameters is {_short(settings)} and no mapping: save it without")
        known |= {**(settings or {}), **{key: content[key] for key in ("lmbda", "distortion") if key in content}}
        inner = next((content[key] for key in NESTS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            _check_sizes(content, path)
            return content, known
        content = inner
    raise CheckpointError(f"{path}: its state dict is nested too deep: {SAVE}")


def load_inert(path: Path) -> Any:
    """Content of a file of ``torch.save`` that holds tensors and plain types; of another nothing is executed.

    Raises:
        CheckpointError: It is damaged, or holds other types: the message names them.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    if zipped:
        _check_stored(path)
    try:
        # Mapped, no tensor reaches beyond the file, whatever size it claims.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch.load raises whatever the unpickler met
        if others := _other_types(path, str(error)):
            more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
            raise CheckpointError(
                f"{path} holds more than weights, {', '.join(others[:LISTED])}{more}, which could run code when it is read; none "
                f"was run. Where you trust it, load it with the program that wrote it and {SAVE}"
            ) from error
        raise CheckpointError(f"{path} is damaged or no checkpoint: {type(error).__name__}") from error


def _check_stored(path: Path) -> None:
    """Raises a CheckpointError where the pickle in a zip file is compressed: torch.save never does it, and a small file could ask
    for any amount of memory so. Tensors are mapped, which compressed ones cannot be."""
    try:
        with zipfile.ZipFile(path) as file:
            pickles = [part for part in file.infolist() if part.filename.endswith("data.pkl")]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {type(error).__name__}") from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in pickles):
        raise CheckpointError(f"{path}: data.pkl in it is compressed, as torch.save never writes it: {SAVE}")


def _other_types(path: Path, message: str) -> list[str]:
    """Names of the types and functions for whose sake a file was refused; found without executing them."""
    refused = re.findall(r"(?:GLOBAL|Trying to call reduce for|instantiate class|type) ((?:\w+\.)+\w+)", message)
    try:
        others = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file without zip, or a damaged one
        others = ["a TorchScript program"] if "TorchScript" in message else []
    named = sorted({name for name in (*others, *refused[:1]) if not name.startswith("collections.")})
    return [name for name in named if re.fullmatch(r"[\w. ]+", name)]
