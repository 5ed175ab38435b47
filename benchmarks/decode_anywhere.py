"""Decodes photographs in processes under other instruction sets and thread counts, and counts what differs.

The control is CompressAI's own way, the hyper-synthesis in fp32: how many tables of how many photographs it finds otherwise.

    python benchmarks/decode_anywhere.py PHOTOGRAPH [PHOTOGRAPH ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

CONDITIONS: dict[str, dict[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "oneDNN SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "MKL SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE"},
    "all of them": {
        "OMP_NUM_THREADS": "1",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "MKL_CBWR": "COMPATIBLE",
    },
}
"""Variables of the environment of a process that computes in another way, by name."""
FIRST = "1 thread"

Found = dict[str, Tensor]


def decode_files(folder: Path) -> list[Found]:
    """What this process finds for each ``.sga`` file of a folder, in the order of their names."""
    from sga.bitstream import Bitstream, decode_image
    from sga.codecs import ScaleHyperpriorCodec
    from sga.codecs.checkpoint import EMBEDDED
    from sga.codecs.entropy import table_indexes
    from sga.images import padded_size
    from sga.loading import load_codec

    loaded = load_codec(EMBEDDED)
    codec = loaded.codec
    assert isinstance(codec, ScaleHyperpriorCodec)
    found = []
    for path in sorted(folder.glob("*.sga")):
        data = path.read_bytes()
        stream = Bitstream.from_bytes(data)
        size = padded_size(stream.height, stream.width, codec.stride)
        with torch.no_grad():
            z_hat = codec.decode_latents(stream.strings, *size).z_hat
            assert z_hat is not None
            fp32 = table_indexes(codec.net.gaussian_conditional, codec.net.h_s(z_hat))
            y_hat = codec.decode(stream.strings, *size)
        found.append({"symbols": y_hat, "fp32 tables": fp32, "pixels": decode_image(loaded, data).int()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", nargs="*", type=Path)
    parser.add_argument("--decode", type=Path, nargs=2, metavar=("FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        folder, output = options.decode
        torch.save(decode_files(folder), output)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _encode(options.photographs, folder)
        found = {condition: _found_under(variables, folder) for condition, variables in CONDITIONS.items()}
    for condition, files in found.items():
        print(f"{condition}: of {len(files)} files, against {FIRST}")
        for part in files[0]:
            differences = [(one[part] - other[part]).abs() for one, other in zip(found[FIRST], files, strict=True)]
            elements = sum(int((each > 0).sum()) for each in differences)
            most = max(float(each.max()) for each in differences)
            print(f"  {part}: {elements} differ in {sum(bool(each.any()) for each in differences)} files, by {most:g} at most")


def _encode(photographs: list[Path], folder: Path) -> None:
    from sga.codecs.checkpoint import EMBEDDED
    from sga.images import read_image
    from sga.loading import load_codec
    from sga.photograph import encode_photograph

    loaded = load_codec(EMBEDDED)
    for number, path in enumerate(photographs):
        encode_photograph(loaded, read_image(path))[0].save(folder / f"{number:03d}.sga")


def _found_under(variables: dict[str, str], folder: Path) -> list[Found]:
    output = folder / "found.pt"
    command = [sys.executable, __file__, "--decode", str(folder), str(output)]
    subprocess.run(command, check=True, env={**os.environ, **variables})
    found: list[Found] = torch.load(output, weights_only=True)
    return found


if __name__ == "__main__":
    main()
