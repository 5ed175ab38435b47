"""Checkpoints by name, loaded into codecs, and the hash that names a model in files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sga.codecs.base import TRANSFORMS, Codec
from sga.codecs.checkpoint_files import CONSTANTS, CheckpointError, CheckpointFile, State, read_file
from sga.codecs.tables import without_tables
from sga.codecs.zoo import ZOO, read_zoo
from sga.files import home

__all__ = [
    "EMBEDDED",
    "EMBEDDED_PATH",
    "CheckpointError",
    "codec_spec",
    "load_state",
    "load_weights",
    "model_hash",
    "read_checkpoint",
    "without_tables",
]

EMBEDDED = "embedded"
"""Stands for the checkpoint that ships in the package: one model for all rates."""
EMBEDDED_PATH = home() / "checkpoints" / "variable_rate_scale_hyperprior.safetensors"


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

    Args:
        checkpoint: ``embedded``, ``zoo:ARCHITECTURE/METRIC/QUALITY``, or a file.

    Raises:
        CheckpointError: As :func:`read_file` and :func:`read_zoo`.
    """
    if str(checkpoint).startswith(ZOO):
        return read_zoo(str(checkpoint))
    return read_file(EMBEDDED_PATH if checkpoint == EMBEDDED else Path(checkpoint))


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
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}: weights do not fit {codec_spec(codec)}: {error}") from error
