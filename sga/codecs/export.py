"""Checkpoints written to ship, and for CompressAI."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from sga.codecs.base import Codec
from sga.codecs.checkpoint_files import CONSTANTS, State
from sga.codecs.tables import CDF, CDF_LENGTH, without_padding
from sga.files import write_atomically


def export_safetensors(codec: Codec, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a checkpoint to ship: transforms in half precision, entropy models in fp32, coding tables of those very weights.

    Args:
        codec: Is rounded to the precision of the file, and its tables are made, in place.
        path: A ``.safetensors`` file.
        metadata: Strings for the file's header; ``lmbda`` and ``distortion`` are read back by :func:`load_codec`.
    """
    tensors: State = {}
    with torch.no_grad():
        for name, value in codec.net.named_parameters():
            if not name.startswith("entropy_bottleneck"):
                value.copy_(value.half().float())
    codec.make_tables()
    state = codec.net.state_dict()
    for name, value in state.items():
        if name.endswith(CONSTANTS):
            continue
        if name.endswith(CDF):
            tensors[name] = without_padding(value, state[name.replace(CDF, CDF_LENGTH)]).cpu()
            continue
        half = value.is_floating_point() and not name.startswith(("entropy_bottleneck", "gaussian_conditional"))
        tensors[name] = (value.half() if half else value).contiguous().cpu()
    write_atomically(path, save(tensors, {"codec": type(codec).__name__, **metadata}))


def export_compressai(codec: Codec, path: Path) -> None:
    """Writes what ``python -m compressai.utils.eval_model checkpoint`` reads."""
    content = io.BytesIO()  # torch.save writes the name of a file into it
    torch.save({"state_dict": {name: value.cpu() for name, value in codec.net.state_dict().items()}}, content)
    write_atomically(path, content.getvalue())
