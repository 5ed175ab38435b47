from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from data import folders, shards
from data.folders import EXTENSIONS, find_images, unique_names
from data.image_sets import image_sets, list_images
from data.named_sets import images_of
from data.refinement_data import RefinementDataModule
from data.training_data import TrainingDataModule
from sga.images import ImageError, read_image
from sga.pillow import PLUGINS
from sga.runs.table import print_rows


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_reported", set())


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with three photographs and all that lies beside photographs."""
    root, outside = tmp_path / "photographs", tmp_path / "outside"
    images = ["a.PNG", "more/b.jfif", "../outside/c.png"]
    others = ["._a.png", ".ipynb_checkpoints/a.png", "@eaDir/a.png", "__MACOSX/a.png", "notes.txt", "more/old.txt", "README"]
    for name in images + others:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(path, format="PNG")
    (root / "linked").symlink_to(outside)
    (outside / "loop").symlink_to(root)
    (root / "more/again").symlink_to(root / "more")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    return root


LINE = "4 hidden, 2 .txt, 1 broken link, 1 without ending"


def test_all_commands_see_the_same_images_and_say_what_they_pass_over(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [mixed / "a.PNG", mixed / "linked/c.png", mixed / "more/b.jfif"]
    assert find_images(mixed) == expected
    assert capsys.readouterr().err == f"passed over in {mixed}: {LINE}\n"
    assert images_of(mixed) == RefinementDataModule(str(mixed)).paths == expected
    assert [image.path for image in list_images(mixed)] == expected
    data = TrainingDataModule(mixed, valid=str(mixed))
    data.setup("test")
    assert data.test_paths == expected and data.test_names == ["a", "c", "b"]
    assert capsys.readouterr().err == ""  # once is enough


def test_shards_are_made_of_the_same_images(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards.main([str(mixed), "-o", str(tmp_path / "out")]) == 0
    assert [image.member for image in list_images(tmp_path / "out")] == ["000000000.png", "000000001.png", "000000002.jfif"]
    assert capsys.readouterr().err == f"passed over in {mixed}: {LINE}\n"


def test_links_and_hidden_members_of_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(picture, format="PNG")

    def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        return member

    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(link("x/early.png", "../y/real.png", tarfile.SYMTYPE))  # before what it names
        for name in ("y/real.png", "y/._real.png", ".cache/real.png", "y/real.cls"):
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            file.addfile(member, io.BytesIO(picture.getvalue()))
        file.addfile(link("z/hard.png", "y/real.png", tarfile.LNKTYPE))
        file.addfile(link("z/chain.png", "hard.png", tarfile.SYMTYPE))
        file.addfile(link("z/gone.png", "nothing.png", tarfile.SYMTYPE))
        file.addfile(link("z/self.png", "self.png", tarfile.SYMTYPE))
    images = list_images(tmp_path / "a.tar")
    assert [image.member for image in images] == ["x/early.png", "y/real.png", "z/hard.png", "z/chain.png"]
    assert all(image.read()[:, 0, 0].tolist() == [1, 2, 3] and image.size() == (6, 8) for image in images)
    assert capsys.readouterr().err == f"passed over in {tmp_path / 'a.tar'}: 2 broken link, 2 hidden, 1 .cls\n"


@pytest.mark.parametrize("ending", sorted(EXTENSIONS - set(PLUGINS)))
def test_every_ending_is_one_that_pillow_reads(ending: str) -> None:
    Image.init()
    assert Image.registered_extensions()[ending] in Image.OPEN


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".jp2", ".pgm", ".pnm", ".tga", ".bmp", ".avif", ".webp"])
def test_a_photograph_of_another_format_is_found_and_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    Image.new("L" if ending == ".pgm" else "RGB", (32, 16), 100).save(path)
    assert find_images(tmp_path) == [path]
    assert read_image(path).shape == (3, 16, 32)


@pytest.mark.parametrize("ending", sorted(PLUGINS))
def test_a_format_without_its_plugin_says_what_to_install(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"a{ending}").write_bytes(b"of another format")
    monkeypatch.setattr("sga.pillow.find_spec", lambda _: None)
    (path,) = find_images(tmp_path)
    with pytest.raises(ImageError, match=rf"a\{ending} as an image: pip install pillow-"):
        read_image(path)


def test_a_folder_that_may_not_be_read_is_named(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: str | Path) -> object:
        if Path(path).name == "more":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError) as caught:
        find_images(mixed)
    assert caught.value.filename == str(mixed / "more")


def test_an_empty_name_is_not_the_present_folder(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mixed)
    for use in (
        lambda: RefinementDataModule(""),
        lambda: image_sets(""),
        lambda: image_sets([""]),
        lambda: image_sets({"": 1.0}),
        lambda: TrainingDataModule(mixed, valid=""),
        lambda: TrainingDataModule(mixed, test=""),
    ):
        with pytest.raises(ValueError, match='given as ""'):
            use()


def test_the_home_folder_is_expanded(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mixed.parent))
    assert images_of("~/photographs") == RefinementDataModule("~/photographs").paths == find_images(mixed)


def test_a_set_without_a_readable_image_is_refused(mixed: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("a.png", "b.png"):
        (bad / name).write_bytes(b"")
    data = TrainingDataModule(mixed, valid=bad)
    with pytest.raises(ImageError, match=r"none of the 2 images can be read; the first: .*a\.png"):
        data.setup("fit")
    with pytest.raises(ImageError, match="none of the 2 images can be read"):
        TrainingDataModule(test=bad).setup("test")
    shutil.copy(mixed / "a.PNG", bad / "c.png")
    TrainingDataModule(mixed, valid=bad).setup("fit")


def test_names_survive_every_file_and_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = [
        os.fsdecode(b"na\xefve.png"),
        "two\nlines.png",
        "IMG[copy].png",
        "IMG[final].png",
        ":smile:.png",
        "...png",
        "é\u202f1.png",
    ]
    long = ["x" * 250 + ".png", "x" * 249 + "y.png"]
    names = unique_names([tmp_path / name for name in odd + long])
    assert names[:7] == ["na\\xefve", "two\\nlines", "IMG[copy]", "IMG[final]", ":smile:", "__", "é\u202f1"]
    assert len(set(names)) == 9 and all(len(name.encode()) <= 240 for name in names)
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps(name, ensure_ascii=False), encoding="utf-8")
    print_rows("title", ["bpp"], [(name, ["1"]) for name in names[:5]])
    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in names[:5])


def test_the_error_of_an_image_with_an_odd_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"na\xefve.png")
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert "na\\xefve.png" in str(caught.value).encode("utf-8").decode()


def test_namesakes_of_the_root_folder_are_told_apart(tmp_path: Path) -> None:
    assert unique_names([Path("/a.png"), Path("/a.jpg")]) == ["_a_png", "_a_jpg"]
