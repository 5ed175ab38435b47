"""Classical codecs measured on the photographs of a study: ``python -m reports.classical --root DIR -o STUDY/classical``.

The codecs are JPEG, WebP, AVIF, HEVC intra (HEIC) and JPEG XL, through Pillow and its plugins. Each photograph is coded with each
codec at each quality. The measurements are of the file: its bits per pixel, container and header included, and the metrics of the
8-bit RGB image that it decodes to, by the same functions as for refined files. Each measurement is written at once, so that a
command that was stopped continues where it was.

The settings are the codecs' slow ones, tuned for PSNR where an encoder has such a switch: the default tunings of AVIF and HEVC aim
at visual quality, which cost AVIF about half a decibel on an embedded photograph. AVIF has speed 3: on that photograph, speeds 2
and 0 gained nothing measurable, and 4 needed 1.5 % more bits. WebP has 4:2:0 alone, JPEG XL full colour alone; the others are
measured with both.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image, features
from torch import Tensor

from data.refinement_data import SAMPLES, ImageFile, RefinementDataModule
from reports.figures import write_csv
from sga.cli import errors_in_one_line, fail
from sga.files import write_atomically
from sga.images import ImageError, read_image
from sga.measures import Coding
from sga.quality import ALWAYS, LATER, Quality
from sga.runs.folder import IMAGES

INSTALL = "pip install -e .[reports]"


@dataclass(frozen=True)
class ClassicalCodec:
    """A classical codec with its settings.

    Attributes:
        name: Name in figures and on the command line.
        format: Pillow's name of the format.
        settings: Arguments of ``Image.save``.
        qualities: Values of the codec's quality setting, ascending; about 0.1 to 2 bits per pixel on a photograph, or as low as
            the codec goes.
        package: Package that adds the format to Pillow; ``None`` where Pillow itself has it.
    """

    name: str
    format: str
    settings: Mapping[str, Any]
    qualities: tuple[int, ...]
    package: str | None = None

    def encode(self, image: Tensor, quality: int) -> bytes:
        """The file of a uint8 image ``[3, H, W]``, without metadata.

        Raises:
            ImageError: The encoder refuses the image, as WebP does with a side of over 16383 pixels.
        """
        file = io.BytesIO()
        try:
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, self.format, quality=quality, **self.settings)
        except (ValueError, RuntimeError, OSError) as error:
            raise ImageError(f"{self.name} of quality {quality} refuses the image: {error}") from error
        return file.getvalue()


@dataclass(frozen=True)
class Measurement:
    """Measurement of a photograph, coded with a classical codec at one quality.

    Attributes:
        codec: Name of the codec.
        quality: Value of the codec's quality setting, on its own scale.
        settings: Other settings, in words; see :func:`in_words`.
        bytes: Size of the file in bytes.
        measured: Metrics of the file.
    """

    codec: str
    quality: int
    settings: str
    bytes: int
    measured: Quality

    @property
    def row(self) -> dict[str, Any]:
        """The values by :data:`COLUMNS`."""
        return {**{name: getattr(self, name) for name in OWN}, **self.measured.columns()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The measurement of a row; metrics that are newer than the row may be missing from it.

        Raises:
            KeyError, TypeError: The row is damaged.
        """
        return cls(**{name: row[name] for name in OWN}, measured=Quality.from_columns(row))


OWN = ("codec", "quality", "settings", "bytes")
COLUMNS = ("image", *OWN, *ALWAYS, *LATER)


def _jpeg(subsampling: str) -> ClassicalCodec:
    settings = {"subsampling": subsampling, "optimize": True, "progressive": True}
    return ClassicalCodec(f"JPEG {subsampling}", "JPEG", settings, (5, 10, 20, 30, 40, 50, 60, 70, 80, 90))


def _avif(subsampling: str) -> ClassicalCodec:
    # Pillow would cut large images into tiles, which are faster but cost bits.
    settings = {"subsampling": subsampling, "speed": 3, "autotiling": False, "advanced": {"tune": "psnr"}}
    return ClassicalCodec(f"AVIF {subsampling}", "AVIF", settings, (10, 15, 20, 30, 40, 50, 60, 70, 80))


def _hevc(subsampling: str) -> ClassicalCodec:
    settings = {"chroma": int(subsampling.replace(":", "")), "enc_params": {"preset": "veryslow", "tune": "psnr"}}
    return ClassicalCodec(f"HEVC {subsampling}", "HEIF", settings, (5, 10, 15, 20, 27, 35, 43, 50, 55), "pillow_heif")


CODECS = (
    _jpeg("4:2:0"),
    _jpeg("4:4:4"),
    ClassicalCodec("WebP", "WEBP", {"method": 6}, (0, 1, 10, 20, 35, 50, 65, 75, 85, 90)),
    _avif("4:2:0"),
    _avif("4:4:4"),
    _hevc("4:2:0"),
    _hevc("4:4:4"),
    ClassicalCodec("JPEG XL", "JXL", {"effort": 9}, (0, 10, 25, 40, 55, 65, 75, 85, 91), "pillow_jxl"),
)


def missing(codec: ClassicalCodec) -> str | None:
    """Reason why a codec cannot be used here; ``None`` where it can, after adding its format to Pillow."""
    try:
        plugin = importlib.import_module(codec.package) if codec.package is not None else None
    except ImportError as error:
        return f"{codec.name} is left out ({error}): {INSTALL}"
    if plugin is not None and hasattr(plugin, "register_heif_opener"):
        plugin.register_heif_opener()
    if codec.format == "AVIF" and not features.check("avif"):
        return f"{codec.name} is left out (this Pillow has no AVIF): pip install 'pillow>=11.3'"
    return None


def measure(codec: ClassicalCodec, image: Tensor, quality: int) -> Measurement:
    """Measurement of a uint8 image ``[3, H, W]`` that is encoded and decoded by a codec.

    Raises:
        ImageError: The codec refuses the image.
    """
    started = time.perf_counter()
    content = codec.encode(image, quality)
    encoded = time.perf_counter()
    decoded = read_image(Path(f"{codec.name} of quality {quality}"), content)
    seconds = encoded - started, time.perf_counter() - encoded
    measured = Quality.of(Coding(image, decoded, 8 * len(content), None, *seconds))
    return Measurement(codec.name, quality, in_words(codec), len(content), measured)


def in_words(codec: ClassicalCodec) -> str:
    """Settings of a codec without the quality, as text, such as ``effort 9``."""
    nested = (value.items() if isinstance(value, dict) else [(key, value)] for key, value in codec.settings.items())
    return ", ".join(f"{key} {value}" for items in nested for key, value in items)


def read_measurements(path: Path) -> tuple[str, tuple[Measurement, ...]]:
    """SHA-256 of the photograph's file and the measurements in an image's JSON file; both empty where there is no such file.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.is_file():
        return "", ()
    try:
        content = json.loads(path.read_bytes())
        rows = tuple(Measurement.from_row(row) for row in content["rows"])
        return str(content["source"]), rows
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: delete it, and the image is measured anew") from None


def measure_image(file: ImageFile, codecs: Iterable[ClassicalCodec], output: Path) -> tuple[int, list[str]]:
    """Measures a photograph and writes the rows that ``output/images/NAME.json`` lacks, one at a time.

    Rows of other codecs stay; rows of other settings of a codec are replaced.

    Returns:
        Number of new rows, and an error message per codec that refuses the image.

    Raises:
        ImageError: The photograph cannot be read.
        ValueError: The folder holds another photograph of this name, or a damaged file.
    """
    path, source = output / IMAGES / f"{file.name}.json", file.sha256()
    known, finished = read_measurements(path)
    if finished and known != source:
        raise ValueError(f"{path} is of another photograph: choose another -o, or delete the file")
    rows = {(row.codec, row.quality): row for row in finished}
    image = read_image(file.path)
    new, refused = 0, []
    for codec in codecs:
        for quality in codec.qualities:
            row = rows.get((codec.name, quality))
            if row is not None and row.settings == in_words(codec):
                continue
            try:
                rows[codec.name, quality] = measure(codec, image, quality)
            except ImageError as error:
                refused.append(str(error))
                break  # the codec would refuse every quality
            content = {"image": file.name, "source": source, "rows": [row.row for row in rows.values()]}
            write_atomically(path, json.dumps(content, indent=1).encode())
            new += 1
    return new, refused


def collect(output: Path) -> int:
    """Number of rows in ``results.csv`` and ``results.json``, which it writes from the files of the images."""
    rows = [
        {"image": path.stem, **row.row} for path in sorted((output / IMAGES).glob("*.json")) for row in read_measurements(path)[1]
    ]
    write_csv(output / "results.csv", COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_atomically(output / "results.json", json.dumps(rows, indent=1).encode())
    return len(rows)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; ``args`` are by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", default=SAMPLES, help="folder of photographs, as --data.root of refine.py (default: the embedded ones)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the measurements; a rerun goes on in it")
    parser.add_argument("--codecs", nargs="+", choices=[codec.name for codec in CODECS], metavar="NAME", help="only these codecs")
    chosen = parser.parse_args(args)
    with errors_in_one_line():
        codecs = []
        for codec in CODECS:
            if chosen.codecs is not None and codec.name not in chosen.codecs:
                continue
            reason = missing(codec)
            if reason is None:
                codecs.append(codec)
            else:
                print(reason)
        if not codecs:
            raise ValueError(f"none of these codecs is installed: {INSTALL}")
        files = RefinementDataModule(chosen.root).files
        (chosen.output / IMAGES).mkdir(parents=True, exist_ok=True)
        failed = 0
        for number, file in enumerate(files, start=1):
            try:
                new, refused = measure_image(file, codecs, chosen.output)
                print(f"{number} of {len(files)}: {file.name}, {new} files measured", flush=True)
            except ImageError as error:
                refused = [str(error)]
            for reason in refused:
                print(f"failed: {file.name}: {reason}", file=sys.stderr)
            failed += bool(refused)
        print(f"{collect(chosen.output)} rows: {chosen.output / 'results.csv'}")
        if failed:
            fail(f"{failed} of {len(files)} images could not be measured in full", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
