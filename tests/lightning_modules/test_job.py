"""A job without a command line: a folder, settings, files and a module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.refinement_data import ImageFile
from lightning_modules.job import Job
from lightning_modules.job_report import print_outcome, problem
from lightning_modules.refinement_module import RefinementModule
from sga.files import sha256_of
from sga.images import read_image, write_image
from sga.quality import Quality
from sga.refinement.rounding import AtanhRounding
from sga.refinement.schedules import Constant
from sga.runs.claims import LOCK, Claims
from sga.runs.folder import BASE_BITSTREAMS, BITSTREAMS, FAILURES, IMAGES, claim
from sga.runs.results import ImageResult, write_result

NAMES = ["a", "b", "c"]
SETTINGS = {"steps": 3, "checkpoint": "embedded", "rounding": {"class_path": "sga.refinement.rounding.AtanhRounding"}}
RESULT = ImageResult(
    image="a",
    height=40,
    width=70,
    method="atanh",
    steps=3,
    lmbda=0.013,
    distortion="mse",
    base=Quality(0.7, 32.0, None),
    rd_loss_base=1.3,
    refined=Quality(0.6, 32.0, None),
    rd_loss=1.2,
    bpp_estimated=0.58,
    best_step=3,
    seconds=1.0,
)


@pytest.fixture(scope="module")
def module() -> RefinementModule:
    return RefinementModule(rounding=AtanhRounding(), temperature=Constant(0.3), steps=3)


@pytest.fixture
def job(module: RefinementModule, pictures: Path, tmp_path: Path) -> Job:
    image = read_image(pictures / "small.png")
    files = []
    for i, name in enumerate(NAMES):
        files.append(ImageFile(name, tmp_path / f"{name}.png"))
        write_image(image.roll(i, -1), files[-1].path)
    config = yaml.safe_dump({"seed": 0, "model": SETTINGS})
    return Job(tmp_path / "run", SETTINGS, module, files, config=config, name="sga")


def do(job: Job, *names: str, **changes: Any) -> None:
    """Writes the results of images, as a process would."""
    for folder in (IMAGES, BITSTREAMS, BASE_BITSTREAMS):
        (job.output / folder).mkdir(parents=True, exist_ok=True)
    for file in job.files:
        if file.name in names:
            for folder in (BITSTREAMS, BASE_BITSTREAMS):
                (job.output / folder / f"{file.name}.bin").write_bytes(f"{folder} of {file.name}".encode())
            hashes = {folder: sha256_of(job.output / folder / f"{file.name}.bin") for folder in (BITSTREAMS, BASE_BITSTREAMS)}
            identity = {"fingerprint": job.fingerprint, "source": file.sha256(), "files": hashes}
            write_result(job.output, replace(RESULT, image=file.name, **changes), identity)


def fail(job: Job, name: str) -> None:
    (job.output / FAILURES).mkdir(parents=True, exist_ok=True)
    (job.output / FAILURES / f"{name}.txt").write_text("no image")


def with_settings(job: Job, **settings: Any) -> Job:
    both = {**SETTINGS, **settings}
    return replace(job, settings=both, config=yaml.safe_dump({"seed": 0, "model": both}))


def test_a_job_begins_goes_on_and_ends(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.begin() == frozenset()
    job.write_config()
    do(job, "a", "c")
    assert job.begin() == {"a", "c"}
    outcome = job.finish()
    assert (outcome.left, outcome.missed, outcome.failures) == (["b"], {}, {})
    assert outcome.summary is not None and outcome.summary["finished"] == 2
    assert problem(job, outcome) == ("1 of 3 images are not finished", 1)
    assert problem(job, outcome, 130) == ("interrupted; finished work is kept, 1 of 3 images are not finished", 130)
    do(job, "b")
    outcome = job.finish()
    assert problem(job, outcome) is None
    assert outcome.summary == json.loads((job.output / "summary.json").read_text())
    print_outcome(job, outcome)
    printed = capsys.readouterr().out
    assert "mean" in printed and f"files and numbers: {job.output}" in printed
    assert len(list((job.output / "tensorboard").glob("events.*"))) == 1


def test_a_share_is_a_part_of_the_job(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (replace(job, shard=(i, 2)) for i in range(2))
    assert first.begin() == frozenset() and second.begin() == frozenset()
    assert first.fingerprint == second.fingerprint == job.fingerprint
    assert [file.name for file in first.share] == ["a", "c"] and second.of_shard == " of shard 1/2"
    do(job, "a", "c")
    outcome = first.finish()
    assert (outcome.left, outcome.summary) == ([], None)  # the other is at work on b
    print_outcome(first, outcome)
    assert "2 of 2 images of shard 0/2 are finished" in capsys.readouterr().out
    assert not (job.output / "summary.json").exists()
    fail(job, "b")
    outcome = first.finish()  # the other has done what it could
    assert (outcome.left, outcome.failures) == ([], {"b": "no image"})
    assert outcome.summary is not None and problem(first, outcome) is None
    assert problem(second, second.finish()) == ("1 of 1 images of shard 1/2 are not finished", 1)


def test_other_settings_are_refused_and_named(job: Job) -> None:
    other = with_settings(job, steps=4, learning_rate=0.1)
    assert other.fingerprint != job.fingerprint
    job.begin()
    with pytest.raises(ValueError, match=r"other settings, without results yet: choose another --output, or delete the folder"):
        other.begin()  # there is no config.yaml yet to tell by
    job.write_config()
    with pytest.raises(ValueError, match=r"other settings \(--model.steps, --model.learning_rate\), without results yet"):
        other.begin()
    do(job, "a")
    with pytest.raises(ValueError, match=r"holds results of other settings \(--model.steps, --model.learning_rate\): choose"):
        other.begin()
    assert job.begin() == {"a"}


def test_a_job_of_an_earlier_version_is_refused_in_a_line_of_its_own(job: Job) -> None:
    former = with_settings(job, rounding={"class_path": "lightning_modules.rounding.AtanhRounding"})
    assert former._former_fingerprint == job._former_fingerprint != job.fingerprint
    claim(job.output, former._former_fingerprint)
    with pytest.raises(ValueError, match="belongs to a job of an earlier version, whose noise differs"):
        job.begin()


def test_another_image_of_the_same_name_is_refused(job: Job, pictures: Path) -> None:
    job.begin()
    do(job, "a")
    write_image(read_image(pictures / "small.png").flip(-1), job.files[0].path)
    with pytest.raises(ValueError, match=rf"result of another image a: choose another --output, or delete \S*{IMAGES}/a.json"):
        job.begin()


def test_a_file_in_the_way_and_an_unknown_name_are_refused(job: Job) -> None:
    with pytest.raises(ValueError, match=r"--compare nobody: no such image \(the first are a, b, c\)"):
        replace(job, compared="nobody").begin()
    job.output.touch()
    with pytest.raises(ValueError, match="is a file, not a folder"):
        job.begin()


def test_files_that_miss_the_target_are_named(job: Job) -> None:
    targeted = replace(job, module=RefinementModule(rounding=AtanhRounding(), temperature=Constant(0.3), steps=3, target_bpp=0.6))
    targeted.begin()
    do(targeted, "a", "b")
    do(targeted, "c", refined=Quality(0.7, 32.0, None))
    outcome = targeted.finish()
    assert list(outcome.missed) == ["c"] and "0.6 bpp were not reached: 0.7000 bpp are the nearest" in outcome.missed["c"]
    wrong = problem(targeted, outcome)
    assert wrong is not None and wrong[1] == 1 and wrong[0].startswith("1 of 3 images missed the target; their nearest files")


def test_results_of_other_settings_are_not_summarised(job: Job) -> None:
    other = with_settings(job, steps=4)
    do(other, "a")
    with pytest.raises(ValueError, match=r"holds results of other settings \(a\)"):
        job.finish()


@pytest.mark.parametrize("folder", [BITSTREAMS, BASE_BITSTREAMS])
@pytest.mark.parametrize("damage", ["deleted", "cut", "altered"])
def test_an_image_whose_files_are_not_whole_is_not_finished(job: Job, folder: str, damage: str) -> None:
    job.begin()
    do(job, "a", "b")
    assert job.begin() == {"a", "b"}
    path = job.output / folder / "a.bin"
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"" if damage == "cut" else b"?"))
    assert job.begin() == {"b"} and job.finish().left == ["a", "c"]


def test_results_that_do_not_tell_what_their_files_hold_need_them_to_be_there(job: Job) -> None:
    job.begin()
    do(job, "a", "b")
    for name in ("a", "b"):
        path = job.output / IMAGES / f"{name}.json"
        content = json.loads(path.read_text())
        del content["files"]
        path.write_text(json.dumps(content))
    (job.output / BITSTREAMS / "b.bin").unlink()
    assert job.begin() == {"a"}


def test_other_images_into_the_same_folder_are_refused_and_further_ones_are_not(job: Job, tmp_path: Path) -> None:
    fewer, other = replace(job, files=job.files[:2]), replace(job, files=[ImageFile("d", tmp_path / "d.png")])
    write_image(read_image(job.files[0].path).flip(-1), other.files[0].path)
    fewer.begin()
    do(fewer, "a", "b")
    with pytest.raises(ValueError, match=r"holds results of 2 images that are not in this job's folder of images \(a, b\): choose"):
        other.begin()
    assert job.begin() == {"a", "b"}  # one more
    assert replace(job, files=job.files[:1], beyond=job.files[1:]).begin() == {"a"}  # --data.limit=1
    renamed = replace(job, files=[*job.files[:1], ImageFile("set_b_png", job.files[1].path), *other.files])
    assert renamed.begin() == {"a"}  # another b has come, from another folder
    claims = Claims(job.output)
    assert claims.take("c")
    with pytest.raises(ValueError, match=r"1 images that are not in this job's folder of images \(c\)"):
        fewer.begin()  # at work on it, without a result yet
    claims.close()
    assert fewer.begin() == {"a", "b"}


def test_images_that_another_process_holds_are_left_to_it(job: Job) -> None:
    job.begin()
    do(job, "a")
    claims = Claims(job.output)
    assert claims.take("b") and claims.take("c")
    outcome = job.finish()
    assert (outcome.left, outcome.held, outcome.summary) == (["b", "c"], ["b", "c"], None)
    unfinished = "2 of 3 images are not finished; another process is refining 2 of them into"
    assert problem(job, outcome) == (f"{unfinished} {job.output} now", 1)
    claims.release("b")
    do(job, "c")
    claims.close()
    outcome = job.finish()
    assert (outcome.left, outcome.held) == (["b"], []) and outcome.summary is not None
    assert not list(job.output.rglob(f"*{LOCK}")) and not list(job.output.rglob(".sga-tmp-*"))
