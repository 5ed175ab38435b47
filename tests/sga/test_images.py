from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.folders import find_images, unique_names
from data.samples import sample_paths
from sga.images import ImageError, image_size, pad, read_image, to_float, to_image, to_pil, to_uint8, write_image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_any_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    gray = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(gray).convert("RGB").convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    pixels = read_image(path)
    assert pixels.shape == (3, 6, 8) and pixels.dtype == torch.uint8
    assert image_size(path) == (6, 8)
    if mode not in {"1", "P"}:  # those are dithered or quantised
        assert (pixels[0].int() - torch.from_numpy(gray).int()).abs().max() <= 1


def test_orientation_of_exif_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (10, 4), "black")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    pixels = read_image(path)
    assert pixels.shape == (3, 10, 4) and pixels[0, 0, -1] == 255
    assert image_size(path) == (10, 4)


def test_size_of_a_turned_tiff_is_that_of_its_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.tif"
    Image.new("RGB", (10, 4)).save(path, exif=exif)
    assert image_size(path) == tuple(read_image(path).shape[-2:])


def test_a_dark_deep_image_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png").max() == 1  # 200 / 65535


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    write_image(torch.zeros(3, 8, 8, dtype=torch.uint8), path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"broken\.png"):
        read_image(path)


def test_padding_repeats_the_edge_up_to_the_stride() -> None:
    x = torch.rand(1, 3, 63, 65)
    padded = pad(x, 64)
    assert padded.shape == (1, 3, 64, 128)
    torch.testing.assert_close(padded[..., :63, :65], x)
    torch.testing.assert_close(padded[..., 63, :65], x[..., 62, :])
    assert pad(torch.rand(3, 1, 1), 64).shape == (3, 64, 64)
    assert pad(torch.rand(3, 64, 64), 64).shape == (3, 64, 64)


def test_eight_bits_round_trip() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(to_uint8(to_float(image)), image)
    assert to_uint8(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]


def test_folders_are_searched_and_names_are_unique(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "b/x.jpg", "y.png", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths = find_images(tmp_path)
    assert [path.name for path in paths] == ["x.png", "x.jpg", "x.png", "y.png"]
    names = unique_names(paths)
    assert len(set(names)) == 4 and "y" in names
    with pytest.raises(FileNotFoundError, match="no images under"):
        empty = tmp_path / "empty"
        empty.mkdir()
        find_images(empty)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_images(tmp_path / "missing")


def test_embedded_photographs_are_installed() -> None:
    assert len(sample_paths()) >= 3
    assert all(read_image(path).shape[0] == 3 for path in sample_paths())


def test_a_picture_in_any_form_is_one_tensor(tmp_path: Path) -> None:
    pixels = np.arange(4 * 10 * 3, dtype=np.uint8).reshape(4, 10, 3)
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    write_image(expected, tmp_path / "image.png")
    for source in (tmp_path / "image.png", str(tmp_path / "image.png"), Image.fromarray(pixels), pixels, expected, pixels[::1]):
        image = to_image(source)
        assert torch.equal(image, expected) and image.is_contiguous()
    assert torch.equal(to_image(pixels[..., 0]), expected[:1].expand(3, -1, -1))
    assert torch.equal(to_image(pixels[::2, ::-1]), expected[:, ::2].flip(2))
    assert np.array_equal(np.asarray(to_pil(expected)), pixels)


def test_orientation_of_a_pil_image_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4)).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert to_image(image).shape == (3, 10, 4)
    assert to_image(Image.new("RGBA", (10, 4), (9, 8, 7, 255)))[:, 0, 0].tolist() == [9, 8, 7]


def test_a_tensor_is_not_the_callers_memory_where_an_array_is_given() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    image = to_image(pixels)
    pixels[:] = 9
    assert image.max() == 0


def test_a_truncated_pil_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    write_image(torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(ImageError, match="PIL image"):
        to_image(image)
