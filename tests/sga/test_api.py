from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import sga
from sga import api, commands
from sga.images import write_image
from sga.loading import LoadedCodec, load_codec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photo(photograph: Tensor) -> Tensor:
    return photograph[:, 100:163, 200:265].contiguous()


@pytest.mark.parametrize("command", ["import sga; dir(sga)", "from sga import commands; commands.main(['decode', '--help'])"])
def test_the_package_and_its_help_load_no_torch(command: str) -> None:
    loaded = "sorted({'torch', 'numpy', 'compressai'} & sys.modules.keys())"
    heavy = f"import sys, atexit; atexit.register(lambda: print('heavy:', {loaded}));"
    done = subprocess.run([sys.executable, "-c", heavy + command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")


def test_every_name_of_the_front_door_is_there() -> None:
    for name in sga.__all__:
        assert getattr(sga, name)
    assert set(sga.__all__) <= set(dir(sga))
    with pytest.raises(AttributeError, match="nothing"):
        _ = sga.nothing  # type: ignore[attr-defined]


def test_a_photograph_is_refined_saved_and_decoded(embedded: LoadedCodec, photo: Tensor, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    result = sga.refine(embedded, photo, "fast", steps=20, progress=lambda *now: seen.append(now))
    result.save(tmp_path / "photo.sga")
    data = (tmp_path / "photo.sga").read_bytes()
    for file in (tmp_path / "photo.sga", str(tmp_path / "photo.sga"), data):
        assert torch.equal(sga.decode(file), result.image)
    assert torch.equal(sga.decode(data, embedded), result.image)
    assert result.quality.bpp == pytest.approx(8 * len(data) / (63 * 65))
    assert result.quality.bpp < result.base.quality.bpp
    assert [step for step, _, _ in seen] == sorted({step for step, _, _ in seen}) and seen[-1][:2] == (20, 20)
    assert seen[-1][2] < 2 and isinstance(seen[-1][2], float)
    assert len(result.curves) == 20


def test_encoding_is_a_refinement_of_no_steps(embedded: LoadedCodec, photo: Tensor, tmp_path: Path) -> None:
    coded = sga.encode(embedded, photo)
    refined = sga.refine(embedded, photo, steps=0)
    assert coded.file == refined.file == refined.base.file
    coded.save(tmp_path / "photo.sga")
    assert (tmp_path / "photo.sga").read_bytes() == coded.file


def test_a_photograph_is_the_same_in_every_form(embedded: LoadedCodec, photo: Tensor, tmp_path: Path) -> None:
    write_image(photo, tmp_path / "photo.png")
    array = photo.permute(1, 2, 0).numpy()
    forms = (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(array), array, photo)
    assert len({sga.encode(embedded, form).file for form in forms}) == 1


def test_the_command_and_the_call_give_the_same_file(embedded: LoadedCodec, photo: Tensor, tmp_path: Path) -> None:
    write_image(photo, tmp_path / "photo.png")
    arguments = "--preset", "fast", "--steps", "4", "--seed", "3"
    assert commands.main(["encode", str(tmp_path / "photo.png"), "-o", str(tmp_path / "photo.sga"), *arguments]) == 0
    result = sga.refine(embedded, tmp_path / "photo.png", "fast", steps=4, seed=3, progress=False)
    assert (tmp_path / "photo.sga").read_bytes() == result.file


def test_settings_may_be_changed(embedded: LoadedCodec, photo: Tensor) -> None:
    settings = replace(sga.preset("fast", steps=6), learning_rate=1e-9)
    assert len(sga.refine(embedded, photo, settings).curves) == 6
    assert len(sga.refine(embedded, photo, settings, steps=3).curves) == 3
    with pytest.raises(ValueError, match="no preset 'quick': choose from instant, fast, balanced, best"):
        sga.preset("quick")
    with pytest.raises(ValueError, match="steps"):
        sga.preset("fast", steps=-1)


def test_a_target_that_cannot_be_reached_is_a_warning(embedded: LoadedCodec, photo: Tensor) -> None:
    with pytest.warns(UserWarning, match="60 dB were not reached"):
        sga.refine(embedded, photo, "fast", steps=2, target_psnr=60)
    with pytest.raises(ValueError, match="exclude each other"):
        sga.refine(embedded, photo, "fast", steps=2, target_psnr=30, target_bpp=1)


def test_a_lambda_is_needed_where_the_checkpoint_has_none(embedded: LoadedCodec, photo: Tensor) -> None:
    unknown = replace(embedded, lmbda=None)
    with pytest.raises(ValueError, match="does not say"):
        sga.refine(unknown, photo, "fast", steps=1)
    assert sga.refine(unknown, photo, "fast", steps=1, lmbda=0.013).file


def test_what_is_no_photograph_is_refused_with_what_is_accepted(embedded: LoadedCodec, photo: Tensor) -> None:
    array = photo.permute(1, 2, 0).numpy()
    wrong = (array / 255, array.transpose(2, 0, 1), array[..., :2], photo[None], photo.float(), photo.permute(1, 2, 0), 3, None)
    for image in wrong:
        with pytest.raises(ValueError, match=r"give a path, a PIL image, a uint8 array \[H, W, 3\]"):
            sga.encode(embedded, image)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="white may be 1 or 255"):
        sga.encode(embedded, array / np.float32(255))


def test_lambda_chooses_the_rate_of_a_file_that_is_not_refined(embedded: LoadedCodec, one_rate: LoadedCodec, photo: Tensor) -> None:
    low, middle, high = (sga.encode(embedded, photo, lmbda=lmbda).quality for lmbda in (0.0018, None, 0.18))
    assert low.bpp < middle.bpp < high.bpp
    assert low.psnr_db is not None and high.psnr_db is not None and low.psnr_db + 5 < high.psnr_db
    assert sga.encode(embedded, photo, lmbda=0.013).file == sga.encode(embedded, photo).file
    with pytest.raises(ValueError, match="this one has one rate"):
        sga.encode(one_rate, photo, lmbda=0.05)


def test_a_codec_of_a_path(embedded: LoadedCodec) -> None:
    path = ROOT / "checkpoints/variable_rate_scale_hyperprior.safetensors"
    assert sga.load(path).model_hash == sga.load(str(path)).model_hash == sga.load().model_hash == embedded.model_hash
    with pytest.raises(ValueError, match="no such checkpoint"):
        sga.load("nowhere.safetensors")
    other = load_codec(ROOT / "checkpoints/factorised_prior_mse_lmbda0.013.safetensors")
    with pytest.raises(ValueError, match="give the checkpoint that wrote it"):
        sga.decode(api.encode(other, np.zeros((4, 4), np.uint8)).file)


def test_the_calls_of_the_readme_run(photo: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    write_image(photo, tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        quick = re.sub(r"^.*cuda.*\n", "", block, flags=re.MULTILINE).replace('"fast")', '"fast", steps=4)')
        exec(quick, names)
    assert (tmp_path / "photo.sga").is_file()
