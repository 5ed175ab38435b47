"""Latents to a file, the file to an image, and the metrics of both: all that is reported is measured from the file."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sga.bitstream import decode_image, encode_image
from sga.codecs import Quantised
from sga.files import write_atomically
from sga.loading import LoadedCodec
from sga.measures import Coding
from sga.quality import Quality


@dataclass(frozen=True)
class CodedImage:
    """A file with its decoded picture and its metrics.

    Attributes:
        file: Bytes of the file.
        image: Picture decoded from ``file``, uint8 ``[3, H, W]``, on the CPU.
        quality: Metrics of the file and the picture.
    """

    file: bytes
    image: Tensor
    quality: Quality

    def save(self, path: str | Path) -> None:
        """Writes the file: whole, or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        write_atomically(Path(path), self.file)


def code_image(loaded: LoadedCodec, quantised: Quantised, original: Tensor, metrics: Collection[str] | None = None) -> CodedImage:
    """The file of ONE image's hard-rounded latents, decoded and measured.

    Args:
        loaded: Codec with its tables.
        quantised: Hard-rounded latents, batch of 1.
        original: Image before padding, uint8 ``[3, H, W]``.
        metrics: Names of the metrics to measure, fields of :class:`sga.quality.Quality`; by default all.

    Raises:
        BitstreamError: The image is too large for the format.
    """
    height, width = original.shape[-2:]
    started = time.perf_counter()
    file = encode_image(loaded, quantised, height, width)
    encoded = time.perf_counter()
    image = decode_image(loaded, file)
    decoded = time.perf_counter()
    coding = Coding(original, image, 8 * len(file), loaded.codec, encoded - started, decoded - encoded)
    return CodedImage(file, image, Quality.of(coding, metrics))
