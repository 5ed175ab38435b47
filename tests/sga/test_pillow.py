from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sga.images import ImageError, image_size, read_image, to_image
from sga.pillow import LIMIT_VARIABLE, MAX_PIXELS

EXIF_TYPES = {2: "ASCII", 4: "LONG", 5: "RATIONAL", 9: "SLONG", 10: "SRATIONAL", 11: "FLOAT", 13: "unknown"}
"""Types of entries that the tests write under tags of other types."""


def exif_block(*entries: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    """EXIF of entries (tag, type, count, 4 bytes of value or offset); ``tail`` follows them."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + tail


def empty_png(path: Path, side: int) -> None:
    """Writes a PNG whose header promises ``side`` x ``side`` pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def orientation(value: int) -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack("<HH", value, 0)


def jpeg(path: Path, exif: bytes = b"") -> Path:
    """A JPEG of 96 x 80 pixels whose corner is bright."""
    image = Image.new("RGB", (96, 80), (90, 120, 60))
    image.paste((250, 250, 250), (0, 0, 16, 16))
    image.save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("kind", EXIF_TYPES, ids=EXIF_TYPES.get)
@pytest.mark.parametrize("tag", [0x0100, 0x011A, 0x011B, 0x0128, 0x0131])
def test_an_entry_of_a_wrong_type_does_not_keep_a_picture_from_being_turned(kind: int, tag: int, tmp_path: Path) -> None:
    offset = struct.pack("<I", 8 + 2 + 24 + 4)
    path = jpeg(tmp_path / "a.jpg", exif_block(orientation(6), (tag, kind, 1, offset), tail=struct.pack("<ii", -1, 0)))
    pixels = read_image(path)
    assert image_size(path) == pixels.shape[-2:] == (96, 80)
    assert pixels[0, :16, -16:].min() > 240  # clockwise: the bright corner is at the right


def test_random_exif_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    plain = read_image(jpeg(tmp_path / "plain.jpg"))
    for i in range(200):
        tags = [*rng.integers(0x100, 0x140, 4).tolist(), 0x8769, 0x8825]
        entries = [(tag, int(rng.integers(14)), int(rng.integers(9)), rng.bytes(4)) for tag in tags if tag != 0x0112]
        path = jpeg(tmp_path / "a.jpg", exif_block(*entries, tail=rng.bytes(int(rng.integers(64)))))
        assert torch.equal(read_image(path), plain), i
        assert image_size(path) == (80, 96), i


@pytest.mark.parametrize(("kind", "count", "value"), [(3, 1, 0), (3, 1, 9), (2, 4, 6), (7, 4, 6), (11, 1, 6)])
def test_an_orientation_outside_the_standard_turns_nothing(kind: int, count: int, value: int, tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", exif_block((0x0112, kind, count, struct.pack("<I", value))))
    assert image_size(path) == read_image(path).shape[-2:] == (80, 96)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_every_orientation_shows_the_same_picture(value: int, ending: str, tmp_path: Path) -> None:
    picture = np.zeros((16, 32), np.uint8)
    picture[:8, :16], picture[8:, :8] = 250, 120
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.T,
        6: np.rot90(picture),
        7: np.rot90(picture, 2).T,
        8: np.rot90(picture, -1),
    }[value]
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / f"a.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, **lossless)
    found = read_image(path)
    assert image_size(path) == found.shape[-2:] == (16, 32)
    assert (found[0].int() - torch.from_numpy(picture).int()).abs().max() <= 12


@pytest.mark.parametrize(
    "error", [struct.error, KeyError, TypeError, MemoryError, zlib.error, EOFError, RecursionError, IndexError, AssertionError]
)
def test_whatever_a_reader_raises_is_an_error_of_the_image(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jpeg(tmp_path / "a.jpg")

    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", load)
    with pytest.raises(ImageError, match=rf"cannot read .*a\.jpg as an image: damaged \({error.__name__}"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_the_size_in_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    empty_png(path, 13000)
    message = rf"bomb\.png .*13000 x 13000 pixels, more than the limit of {MAX_PIXELS}: .*{LIMIT_VARIABLE}"
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=message):
            read(path)
    monkeypatch.setenv(LIMIT_VARIABLE, str(13000**2))
    assert image_size(path) == (13000, 13000)
    empty_png(path, 65000)
    with pytest.raises(ImageError, match=r"bomb\.png .*more than the limit of 169000000"):  # Pillow's own refusal
        read_image(path)


def test_a_bomb_is_one_line_of_a_command(tmp_path: Path) -> None:
    empty_png(tmp_path / "bomb.png", 13000)
    command = [sys.executable, "-m", "data.shards", tmp_path, "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Warning" not in done.stderr
    left_out, error = done.stderr.splitlines()
    assert "bomb.png" in left_out and LIMIT_VARIABLE in left_out and error == "error: none of the images can be read"


def test_the_limit_is_inclusive_and_a_bad_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jpeg(tmp_path / "a.jpg")
    monkeypatch.setenv(LIMIT_VARIABLE, str(96 * 80))
    assert read_image(path).shape == (3, 80, 96)
    monkeypatch.setenv(LIMIT_VARIABLE, str(96 * 80 - 1))
    with pytest.raises(ImageError, match=r"96 x 80 pixels, more than the limit of 7679"):
        read_image(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(ImageError, match=f"{LIMIT_VARIABLE} must be a whole number above 0, not many"):
        read_image(path)


@pytest.mark.parametrize(
    ("largest", "white"), [(1.0, 1), (0.5, 1), (1.02, 1), (2.0, 1), (2.5, 255), (255.0, 255), (256.0, 65535), (65535.0, 65535)]
)
def test_white_of_a_float_image_is_1_or_255_or_65535(largest: float, white: int, tmp_path: Path) -> None:
    values = np.array([[-0.1, 0.0], [largest / 2, largest]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    expected = [min(max(int(value / white * 255 + 0.5), 0), 255) for value in values.flatten().tolist()]
    assert read_image(tmp_path / "a.tif")[0].flatten().tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5, value]], dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif as an image: it has pixels that are not finite numbers"):
        read_image(tmp_path / "a.tif")


def test_a_dark_pgm_of_16_bits_stays_dark(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 1\n65535\n" + struct.pack(">HH", 0, 200))
    assert read_image(tmp_path / "a.pgm").max() == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "La", "RGBa", "PA"])
def test_transparent_parts_lie_over_white(mode: str) -> None:
    picture = Image.new("LA", (3, 1))
    for x, pixel in enumerate([(0, 0), (0, 255), (100, 128)]):
        picture.putpixel((x, 0), pixel)
    if mode == "PA":  # a gray palette
        alpha, picture = picture.getchannel("A"), picture.getchannel("L").convert("P").convert("PA")
        picture.putalpha(alpha)
    elif mode == "RGBa":
        picture = picture.convert("RGBA")
    image = to_image(picture if mode == "PA" else picture.convert(mode))
    assert image[:, 0, 0].tolist() == [255] * 3 and image[:, 0, 1].tolist() == [0] * 3
    assert abs(int(image[0, 0, 2]) - round(100 * 128 / 255 + 127)) <= 2


@pytest.mark.parametrize(("mode", "key", "ending"), [("P", 0, "png"), ("P", 0, "gif"), ("L", 0, "png"), ("RGB", (0, 0, 0), "png")])
def test_a_colour_that_is_transparent_lies_over_white(mode: str, key: object, ending: str, tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((1, 0), (90, 90, 90))
    picture = picture.convert("L").convert("P") if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / f"a.{ending}", transparency=key)
    assert read_image(tmp_path / f"a.{ending}")[:, 0].T.tolist() == [[255] * 3, [90] * 3]


def test_a_gray_of_16_bits_that_is_transparent_lies_over_white(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HH", 300, 257 * 90)))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", struct.pack(">H", 300)) + pixels + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    assert read_image(tmp_path / "a.png")[:, 0].T.tolist() == [[255] * 3, [90] * 3]
