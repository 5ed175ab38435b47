from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from data.crops import ContiguousSampler, RandomCrops
from data.images import ImageError
from data.samples import sample_paths
from data.training_data import TrainingDataModule, WholeImages


def test_a_crop_is_a_function_of_its_number() -> None:
    first = RandomCrops(sample_paths(), 64, seed=3)
    second = RandomCrops(sample_paths(), 64, seed=3, in_memory=False)
    for number in (0, 5, 1_000_003):
        assert torch.equal(first[number], second[number])
    assert not torch.equal(first[0], RandomCrops(sample_paths(), 64, seed=4)[0])
    crop = first[7]
    assert crop.shape == (3, 64, 64) and crop.dtype == torch.float32
    assert crop.min() >= 0 and 0.1 < crop.max() <= 1


def test_every_image_is_used_once_a_pass(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("RGB", (70, 70), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
    crops = RandomCrops(sorted(tmp_path.glob("*.png")), 64, seed=0)
    for first in (0, 5, 10):
        reds = sorted(round(crops[first + i][0, 0, 0].item() * 255) for i in range(5))
        assert reds == [0, 50, 100, 150, 200]


def test_small_images_are_enlarged_and_damaged_ones_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (40, 100), "red").save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    crops = RandomCrops(sorted(tmp_path.glob("*.png")), 64, seed=0)
    assert len(crops) == 1 and crops[3].shape == (3, 64, 64)
    with pytest.raises(ImageError, match="none of the training images"):
        RandomCrops([tmp_path / "broken.png"], 64, seed=0)


def test_jpeg_is_reduced_before_cropping(tmp_path: Path) -> None:
    # Stripes of one pixel: a reduced crop is gray, one at full size is not.
    image = Image.new("L", (512, 512))
    image.putdata([255 * (i % 2) for i in range(512 * 512)])
    image.save(tmp_path / "stripes.jpg", quality=95)
    image.save(tmp_path / "stripes.png")
    reduced = RandomCrops([tmp_path / "stripes.jpg"], 64, seed=0, min_scale=0.5)
    whole = RandomCrops([tmp_path / "stripes.png"], 64, seed=0, min_scale=0.5)
    assert torch.stack([reduced[i] for i in range(20)]).std() < 0.7 * torch.stack([whole[i] for i in range(20)]).std()


def test_samples_go_on_from_any_point() -> None:
    through = [list(ContiguousSampler(6)), []]
    sampler = ContiguousSampler(6)
    sampler.set_epoch(1)
    through[1] = list(sampler)
    assert through == [list(range(6)), list(range(6, 12))]
    resumed = ContiguousSampler(6, start=8)
    resumed.set_epoch(1)
    assert list(resumed) == [8, 9, 10, 11] and len(resumed) == 6
    resumed.set_epoch(2)
    assert list(resumed) == list(range(12, 18))


def test_ranks_share_the_samples_of_one_process() -> None:
    shares = [list(ContiguousSampler(8, start=4, rank=rank, world=2)) for rank in range(2)]
    assert shares == [[4, 6], [5, 7]]
    assert len(ContiguousSampler(8, rank=1, world=2)) == 4


def test_validation_images_are_whole_and_padded() -> None:
    x, size = WholeImages(sample_paths()[1])[0]
    assert size.tolist() == [300, 451] and x.shape == (3, 320, 512)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        TrainingDataModule(tmp_path, crop_size=100)
    with pytest.raises(FileNotFoundError, match="no images"):
        TrainingDataModule(tmp_path).setup("fit")
