from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from data import memory
from data.crops import BLOCK, ContiguousSampler, CropPlan, RandomCrops
from data.image_sets import ImageSet, ImageSource
from data.memory import CropsInMemory, free_memory
from data.resampling import Crop, cubic_weights, cut, cut_all
from data.samples import sample_paths
from sga.images import ImageError, to_float

CPU = torch.device("cpu")


def sources(*paths: Path) -> list[ImageSource]:
    return [ImageSource(path) for path in paths]


def plan_of(*paths: Path, size: int = 64, seed: int = 3, min_scale: float = 0.5) -> CropPlan:
    return CropPlan([ImageSet(sources(*paths))], size, seed, min_scale)


def sets_of(*counts_and_weights: tuple[int, float]) -> list[ImageSet]:
    """Sets of images that nobody reads."""
    return [ImageSet(sources(*[Path(f"{k}/{i}") for i in range(n)]), weight) for k, (n, weight) in enumerate(counts_and_weights)]


def test_a_crop_is_a_function_of_its_number() -> None:
    numbers = (0, 5, 1_000_003)
    crops = RandomCrops(plan_of(*sample_paths()))
    first = {number: crops[number] for number in numbers}
    again = RandomCrops(plan_of(*sample_paths()))
    for number in reversed(numbers):
        assert torch.equal(again[number], first[number])
    assert not torch.equal(RandomCrops(plan_of(*sample_paths(), seed=4))[0], first[0])
    assert first[0].shape == (3, 64, 64) and first[0].dtype == torch.uint8 and first[0].float().std() > 1


@pytest.mark.filterwarnings("ignore:.*another image stands in for it")
def test_both_ways_give_the_same_crops_whatever_batch_and_workers(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")  # another stands in for it, the same in both ways
    paths = [*sample_paths(), tmp_path / "broken.jpg"]
    with pytest.warns(UserWarning, match="1 of 5 training images left out"):
        in_memory = CropsInMemory(plan_of(*paths))
    expected = in_memory.batch(range(6, 18))
    assert expected.shape == (12, 3, 64, 64) and expected.dtype == torch.float32 and 0 <= expected.min() < expected.max() <= 1
    assert torch.equal(torch.cat([in_memory.batch(range(6, 13)), in_memory.batch(range(13, 18))]), expected)
    sampler = ContiguousSampler(12, lambda: 6)
    batches: list[Tensor] = list(DataLoader(RandomCrops(plan_of(*paths)), batch_size=4, sampler=sampler, num_workers=2))
    assert torch.equal(to_float(torch.cat(batches)), expected)


def test_a_gpu_gets_the_crops_of_a_cpu() -> None:
    # The kernels of a GPU, on this machine's processor: they differ where a value lies between two levels.
    crops = CropsInMemory(plan_of(*sample_paths()))
    expected = crops.batch(range(12))
    crops.device = torch.device("meta")
    difference = (crops.batch(range(12)) - expected).abs() * 255
    assert difference.max() < 2.5 and (difference > 0.5).float().mean() < 0.01


def test_every_image_is_used_once_a_pass() -> None:
    plan = CropPlan(sets_of((5, 1.0)), 64, seed=0)
    passes = [[plan.image_of(first + i) for i in range(5)] for first in (0, 5, 10)]
    assert all(sorted(images) == list(range(5)) for images in passes)
    assert len({tuple(images) for images in passes}) > 1


def test_weights_are_respected_and_sets_are_gone_through_in_passes() -> None:
    plan = CropPlan(sets_of((40, 3.0), (200, 1.0)), 64, seed=0)
    images = [plan.image_of(number) for number in range(2 * BLOCK)]
    first = [image for image in images if image < 40]
    assert len(first) == 2 * BLOCK * 3 / 4
    assert all(0.6 < sum(image < 40 for image in images[i : i + 400]) / 400 < 0.9 for i in range(0, 2 * BLOCK, 400))
    # Every image of the set once a pass, also across the border of two blocks.
    assert all(sorted(first[i : i + 40]) == list(range(40)) for i in range(0, len(first), 40))
    assert set(Counter(image for image in images if image >= 40).values()) == {2 * BLOCK // 4 // 200}
    fresh = CropPlan(sets_of((40, 3.0), (200, 1.0)), 64, seed=0)
    assert [fresh.image_of(number) for number in (2 * BLOCK - 1, 7, BLOCK)] == [images[-1], images[7], images[BLOCK]]


def test_a_weight_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one in 10000"):
        CropPlan(sets_of((5, 1e-6), (5, 1.0)), 64, seed=0)


@pytest.mark.filterwarnings("ignore:.*another image stands in for it")
@pytest.mark.parametrize("way", [RandomCrops, CropsInMemory])
def test_small_images_are_enlarged_and_damaged_ones_left_out(way: type[RandomCrops | CropsInMemory], tmp_path: Path) -> None:
    Image.new("RGB", (40, 100), (255, 0, 0)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="broken.png"):
        crops = way(plan_of(tmp_path / "broken.png", tmp_path / "small.png"))
    for number in range(4):
        crop = to_float(crops[number]) if isinstance(crops, RandomCrops) else crops.batch([number])[0]
        assert crop.shape == (3, 64, 64) and (crop[0] == 1).all() and (crop[1:] == 0).all()
    with pytest.raises(ImageError, match="none of the training images can be read"):
        way(plan_of(tmp_path / "broken.png"))


def test_jpeg_is_reduced_before_cropping(tmp_path: Path) -> None:
    # Stripes of one pixel: a reduced crop is gray, one at full size is not.
    image = Image.new("L", (512, 512))
    image.putdata([255 * (i % 2) for i in range(512 * 512)])
    image.save(tmp_path / "stripes.jpg", quality=95)
    image.save(tmp_path / "stripes.png")
    reduced, whole = (CropsInMemory(plan_of(tmp_path / name)).batch(range(20)) for name in ("stripes.jpg", "stripes.png"))
    assert reduced.std() < 0.7 * whole.std()


def test_images_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2_000_000)
    CropsInMemory(plan_of(sample_paths()[0]))  # 786 kB
    with pytest.raises(ValueError, match=r"--data\.in_memory false"):
        CropsInMemory(plan_of(sample_paths()[0]), ranks=3)


def test_free_memory_is_that_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert free_memory(CPU, tmp_path, tmp_path / "none") == 8000 * 1024
    (tmp_path / "self/cgroup").write_text("0::/job/step\n")
    job = tmp_path / "groups/job"
    (job / "step").mkdir(parents=True)
    (job / "step/memory.max").write_text("max\n")
    (job / "memory.max").write_text("1000000\n")
    (job / "memory.current").write_text("700000\n")
    (job / "memory.stat").write_text("anon 500000\nactive_file 50000\ninactive_file 150000\n")
    assert free_memory(CPU, tmp_path, tmp_path / "groups") == 500_000


@pytest.fixture(params=["one", "all"])
def resample(request: pytest.FixtureRequest) -> object:
    """Resamples one crop, as on a CPU and as on a GPU: ``(image, crop, size) -> fp32 [3, size, size]``."""
    if request.param == "one":
        return lambda image, crop, size: cut(image, crop, size).float()
    return lambda image, crop, size: cut_all(image.permute(1, 2, 0).reshape(-1, 3), [0], [image.shape[-1]], [crop], size)[0]


def test_a_constant_stays_and_a_ramp_stays_a_ramp(resample) -> None:  # type: ignore[no-untyped-def]
    constant = torch.full((3, 200, 180), 77, dtype=torch.uint8)
    assert (resample(constant, Crop(10, 20, 150, False), 64) == 77).all()
    ramp = torch.arange(180, dtype=torch.uint8).expand(3, 200, 180)
    for side in (96, 150):
        # The middle of target pixel j lies at (j + 1/2) * side / 64 of the source, whose pixel i has its own at i + 1/2.
        expected = 20 - 0.5 + (torch.arange(64) + 0.5) * side / 64
        inner = slice(6, -6)  # the edges see the filter cut off
        assert (resample(ramp, Crop(10, 20, side, False), 64) - expected)[..., inner].abs().max() <= 0.51
        assert (resample(ramp, Crop(10, 20, side, True), 64).flip(-1) - expected)[..., inner].abs().max() <= 0.51
        down = resample(ramp.mT.contiguous(), Crop(20, 10, side, False), 64)
        assert (down - expected[:, None])[:, inner].abs().max() <= 0.51


@pytest.mark.parametrize("side", [300, 181, 128, 90])
def test_it_is_the_bicubic_of_pillow(side: int, resample, photograph: Tensor) -> None:  # type: ignore[no-untyped-def]
    crop = Crop(31, 57, side, flipped=True)
    picture = Image.fromarray(photograph.permute(1, 2, 0).numpy()).crop((57, 31, 57 + side, 31 + side))
    resized = picture.resize((128, 128), Image.Resampling.BICUBIC).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    difference = (resample(photograph, crop, 128) - expected).abs()
    assert difference.max() <= 2 and difference.mean() < 0.02


def test_a_batch_may_hold_crops_of_any_sizes(photograph: Tensor) -> None:
    images = [photograph, photograph[:, :200, :150].contiguous()]
    pixels = torch.cat([image.permute(1, 2, 0).reshape(-1, 3) for image in images])
    crops = [Crop(5, 9, 400, False), Crop(50, 0, 150, True)]
    batch = cut_all(pixels, [0, 512 * 512], [512, 150], crops, 128)
    for image, crop, found in zip(images, crops, batch, strict=True):
        assert (found - cut(image, crop, 128)).abs().max() <= 2


def test_cubic_weights_without_a_change_of_size_pick_each_sample() -> None:
    assert torch.equal(cubic_weights(torch.tensor([[[8]]]), 8, 10)[0], torch.eye(8, 10))


def test_samples_go_on_where_the_run_stands() -> None:
    used = 0
    sampler = ContiguousSampler(6, lambda: used)
    assert list(sampler) == list(range(6)) and len(sampler) == 6
    used = 8
    assert list(sampler) == list(range(8, 14))


def test_ranks_share_the_samples_of_one_process() -> None:
    shares = [list(ContiguousSampler(8, lambda: 4, rank, world=2)) for rank in range(2)]
    assert shares == [[4, 6, 8, 10], [5, 7, 9, 11]]
    assert len(ContiguousSampler(8, lambda: 4, rank=1, world=2)) == 4
