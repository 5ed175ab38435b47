from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from data import shards
from data.crops import CropPlan, RandomCrops
from data.image_sets import ImageSet, image_sets, list_images
from data.memory import CropsInMemory
from data.samples import sample_paths
from sga.images import ImageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for path in sample_paths():
        shutil.copy(path, folder / "more" if path.suffix == ".jpg" else folder)
    return folder


def test_shards_hold_the_files_byte_for_byte(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards.main([str(folder), "-o", str(tmp_path / "out"), "--images_per_shard", "3"]) == 0
    names = {"shard-000000.tar": ["000000000.png", "000000001.png", "000000002.png"], "shard-000001.tar": ["000000003.jpg"]}
    assert {path.name for path in tmp_path.iterdir()} == {"photographs", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    expected = [path.read_bytes() for path in sorted(folder.rglob("*.*"))]
    found = []
    for shard, members in names.items():
        with tarfile.open(tmp_path / "out" / shard, "r:") as file:
            assert file.getnames() == members
            found += [stream.read() for name in members if (stream := file.extractfile(name))]
    assert found == expected
    assert capsys.readouterr().out.splitlines() == ["shard-000000.tar: 3 of 4 images", "shard-000001.tar: 4 of 4 images"]


def test_shards_give_the_crops_of_their_folder(folder: Path, tmp_path: Path) -> None:
    shards.main([str(folder), "-o", str(tmp_path / "out"), "--images_per_shard", "2"])
    plans = [CropPlan(image_sets(root), 64, seed=1) for root in (folder, tmp_path / "out")]
    expected, found = (RandomCrops(plan) for plan in plans)
    for number in (0, 1, 2, 3, 77):
        assert torch.equal(expected[number], found[number])
    assert torch.equal(*(CropsInMemory(plan).batch(range(5, 9)) for plan in plans))


def test_a_shard_alone_is_a_root_and_other_members_are_left_alone(tmp_path: Path) -> None:
    shard = tmp_path / "some.tar"
    (tmp_path / "text").write_text("a cat")
    with tarfile.open(shard, "w") as file:
        file.add(sample_paths()[1], "cats/0.PNG")
        file.add(tmp_path / "text", "cats/0.txt")
    (image,) = list_images(shard)
    assert image.member == "cats/0.PNG" and image.size() == (300, 451) and image.read().shape == (3, 300, 451)


def test_damaged_images_are_left_out_and_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    assert shards.main([str(folder), "-o", str(tmp_path / "out")]) == 1
    assert len(list_images(tmp_path / "out")) == 4
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("left out: ") and "bad.png" in first and last.startswith("1 images left out")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("full", "not an empty folder"),
        ("killed", "was killed"),
        ("count", "must be at least 1"),
        ("missing", "no such folder"),
        ("damaged", "none of the images can be read"),
    ],
)
def test_bad_input_is_one_line(wrong: str, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    if wrong == "full":
        output.mkdir()
        (output / "mine").write_text("kept")
    elif wrong == "killed":
        (tmp_path / "out.partial").mkdir()
    elif wrong == "damaged":
        for path in folder.rglob("*.*"):
            path.write_bytes(b"nothing")
    root = tmp_path / "none" if wrong == "missing" else folder
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        shards.main([str(root), "-o", str(output), "--images_per_shard", "0" if wrong == "count" else "2"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_truncated_shard_is_refused(folder: Path, tmp_path: Path) -> None:
    shards.main([str(folder), "-o", str(tmp_path / "out")])
    shard = tmp_path / "out/shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(ImageError, match=r"shard-000000\.tar as an uncompressed tar file"):
        list_images(tmp_path / "out")


def test_roots_are_one_set_and_weights_a_set_each(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(sample_paths()[0], other)
    (together,) = image_sets([folder, other])
    assert [image.path for image in together.images] == [*sorted(folder.rglob("*.*")), other / "astronaut.png"]
    assert image_sets({str(folder): 2.0, str(other): 0.5}) == [
        ImageSet(list_images(folder), 2.0),
        ImageSet(list_images(other), 0.5),
    ]
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be a number above 0"):
            image_sets({str(folder): weight, str(other): 1.0})
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="names no folder"):
            image_sets(nothing)
