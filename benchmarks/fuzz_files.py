"""Damages and forges files, decodes each twice in processes with different heaps, and counts what came of it.

A damaged file has wrong checksums, a forged one right ones: each must end in its picture or in an error of the project, both times
in the same. A process that dies is told with its file; anything but an outcome of these is a failure, and the exit code 1.

    python benchmarks/fuzz_files.py --damaged 100000 --forged 20000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

import torch

from sga.bitstream import HEADER_BYTES, Bitstream, BitstreamError, decode_image, encode_image
from sga.codecs import Codec
from sga.codecs.checkpoint import EMBEDDED, model_hash
from sga.images import pad
from sga.loading import LoadedCodec, load_codec
from sga.refinement.rounding import hard_round

FILES_A_PROCESS = 250
LIMIT_S, LIMIT_BYTES = 1.0, 500 * 2**20
"""What one file may take."""
SIZES = (1, 16, 63, 64, 65, 128, 200, 256)
"""Sides that forged files say, most of the time."""


@dataclass(frozen=True)
class Seed:
    """A codec and a sound file of it."""

    loaded: LoadedCodec
    file: bytes


def tiny_codec(adapter: type[Codec]) -> LoadedCodec:
    """A codec of a few channels with random weights, so that decoding takes milliseconds."""
    torch.manual_seed(0)
    sizes = {"N": 8, "M": 12}
    codec = adapter(**{name: size for name, size in sizes.items() if name in signature(adapter).parameters})
    codec.requires_grad_(False).eval()
    codec.make_tables()
    return LoadedCodec(codec, 0.013, "mse", model_hash(codec))


def seed_of(loaded: LoadedCodec, spread: float = 30, height: int = 96, width: int = 128) -> Seed:
    """A codec with the file of noise, its latents ``spread`` times as large as they are, so that some are outside the tables."""
    codec = loaded.codec
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        gain = codec.gain_for(0.013) if codec.variable_rate else None
        latents = codec.analyse(pad(x, codec.stride), gain).map(lambda value: value * spread)
        quantised = codec.quantise(latents, hard_round, hard_round)
    return Seed(loaded, encode_image(loaded, quantised, height, width))


def damage(file: bytes, draw: random.Random) -> bytes:
    """The file with bits flipped, bytes overwritten, removed, repeated or inserted, its checksum left as it is."""
    data = bytearray(file)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(data))
        kind = draw.randrange(5)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            length = draw.randrange(1, 9)
            data[at : at + length] = draw.randbytes(length)
        elif kind == 2:
            del data[at : at + draw.randrange(1, 33)]
        elif kind == 3:
            data[at:at] = data[at : at + draw.randrange(1, 33)]
        else:
            data[at:at] = draw.randbytes(draw.randrange(1, 9))
        data = data or bytearray(b"S")
    return bytes(data)


def forge(seed: Seed, draw: random.Random) -> bytes:
    """A file of this model whose checksum is right: strings, sizes, gain and their number are drawn, or are the sound file's."""
    sound = Bitstream.from_bytes(seed.file)
    strings = [forged_string(string, draw) if draw.random() < 0.6 else string for string in sound.strings]
    if draw.random() < 0.2:
        strings.append(draw.randbytes(draw.randrange(64)) if draw.random() < 0.5 else bytes(draw.randrange(300)))
    if draw.random() < 0.05:
        strings.pop(0)
    height, width = sound.height, sound.width
    if draw.random() < 0.5:
        height, width = draw.choice(SIZES), draw.choice(SIZES)
    gain = sound.gain
    if gain is not None and draw.random() < 0.3:
        gain = draw.choice((6e-8, 0.01, 1.0, 65504.0))
    forged = replace(sound, strings=strings or [b""], height=height, width=width, gain=gain)
    return earlier_version(forged) if draw.random() < 0.3 else forged.to_bytes()


def earlier_version(stream: Bitstream) -> bytes:
    """A file of version 2, or of 3 where it has a gain; sound only where no symbol is outside its table."""
    payload = stream.to_bytes()[HEADER_BYTES:]
    version = 2 if stream.gain is None else 3
    numbers = (b"SGA", version, stream.model_hash, stream.height, stream.width, zlib.crc32(payload), len(stream.strings))
    header = struct.pack("<3sB6sHHIB", *numbers)
    return header + struct.pack("<H", zlib.crc32(header) & 0xFFFF) + payload


def forged_string(string: bytes, draw: random.Random) -> bytes:
    """A string that an encoder need not have written."""
    kind = draw.randrange(5)
    if kind == 0:
        return damage(string or b"\0", draw)
    if kind == 1:
        return draw.randbytes(draw.randrange(2 * len(string) + 16))
    if kind == 2:
        return bytes([draw.choice((0, 0x7F, 0x80, 0xFF))]) * draw.randrange(2 * len(string) + 64)
    if kind == 3:
        return string[: draw.randrange(len(string) + 1)]
    return string + draw.randbytes(draw.randrange(1, 9))


def outcome(loaded: LoadedCodec, data: bytes) -> str:
    """The hash of the picture, or the project's error; anything else is raised."""
    try:
        image = decode_image(loaded, data)
    except BitstreamError as error:
        return f"refused: {error}"
    return f"decoded: {tuple(image.shape)} {hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16]}"


def outcomes_in_a_process(loaded: LoadedCodec, files: Sequence[bytes], litter: int) -> list[str]:
    """The outcome of each file, decoded in a forked process whose heap holds other bytes; a process that dies is an outcome.

    Args:
        loaded: The codec.
        files: The files.
        litter: Seed of what is in the heap.
    """
    with tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            _decode_and_tell(loaded, files, litter, told.fileno())
        _, status = os.waitpid(child, 0)
        told.seek(0)
        lines = told.read().splitlines()
    if len(lines) < len(files):
        lines.append(f"died: status {status}")
        lines += outcomes_in_a_process(loaded, files[len(lines) :], litter) if len(lines) < len(files) else []
    return lines


def _decode_and_tell(loaded: LoadedCodec, files: Sequence[bytes], litter: int, told: int) -> None:
    torch.set_num_threads(1)  # the threads of the parent are not in a fork
    draw = random.Random(litter)
    for data in files:
        for size in (64, 512, 4096, 65536):  # freed blocks of every size with other bytes, where a read outside would end
            del (blocks := [draw.randbytes(size) for _ in range(8)])[::2]
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            line = outcome(loaded, data)
        except BaseException as error:
            line = f"crashed: {type(error).__name__}: {error}"
        seconds, grown = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if seconds > LIMIT_S or 1024 * grown > LIMIT_BYTES:
            line = f"costly: {seconds:.1f} s, {grown / 1024:.0f} MB: {line}"
        os.write(told, (line.replace("\n", " ") + "\n").encode())
        del blocks
    os._exit(0)


def fuzz(seed: Seed, files: Sequence[bytes]) -> tuple[Counter[str], list[tuple[bytes, str]]]:
    """How many of the files were decoded and refused, and those that ended otherwise, with what they ended in."""
    counted: Counter[str] = Counter()
    failed = []
    for start in range(0, len(files), FILES_A_PROCESS):
        part = files[start : start + FILES_A_PROCESS]
        first, second = (outcomes_in_a_process(seed.loaded, part, litter) for litter in (start, start + 1))
        for data, one, other in zip(part, first, second, strict=True):
            kind = one.partition(":")[0]
            if one == other and kind in ("decoded", "refused"):
                counted[kind] += 1
            else:
                failed.append((data, one if one == other else f"differs: {one} / {other}"))
    return counted, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--damaged", type=int, default=100_000, help="damaged files over all codecs")
    parser.add_argument("--forged", type=int, default=20_000, help="forged files over all codecs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzzed"), help="folder for the files that fail")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [seed_of(load_codec(EMBEDDED)), *(seed_of(tiny_codec(adapter)) for adapter in Codec.adapters())]
    wrong = 0
    for number, seed in enumerate(seeds):
        draw = random.Random(options.seed * 1000 + number)
        damaged = [damage(seed.file, draw) for _ in range(options.damaged // len(seeds))]
        for kind, files in ("damaged", damaged), ("forged", [forge(seed, draw) for _ in range(options.forged // len(seeds))]):
            started = time.perf_counter()
            counted, failed = fuzz(seed, files)
            seconds = time.perf_counter() - started
            found = f"{counted['refused']} refused, {counted['decoded']} decoded, {len(failed)} failed"
            print(
                f"{type(seed.loaded.codec).__name__} {seed.loaded.model_hash.hex()}: {kind}: {found}, {seconds:.0f} s", flush=True
            )
            for data, why in failed:
                options.keep.mkdir(parents=True, exist_ok=True)
                path = options.keep / f"{hashlib.sha256(data).hexdigest()[:12]}.sga"
                path.write_bytes(data)
                print(f"  {path}: {why}")
            wrong += len(failed)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
