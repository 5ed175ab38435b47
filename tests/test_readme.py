"""The commands of the README and of pages in docs/ run, each once and made short; and what these pages name is there.

docs/results.md is left out: its commands took days, and are those of the other pages. docs/extending.md has a test of its own.
"""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import codec
import refine
import train
from data.named_sets import SETS
from data.samples import sample_paths
from sga.api import encode, load
from sga.images import read_image, write_image
from tests.training import arguments

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("checkpoints", "clusters", "refinement", "training")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SHORT = {
    "python refine.py": "--model.steps 2 --model.precision fp32 --trainer.accelerator cpu",
    "python codec.py encode": "--steps 2",
    "sga encode": "--steps 2",
    "python train.py fit": (
        "--trainer.accelerator cpu --trainer.devices 1 --trainer.precision 32-true --trainer.max_steps 2 --model.warmup_steps 0 "
        "--model.compile false --model.codec.init_args.N 8 --model.codec.init_args.M 12 --data.crop_size 64 --data.batch_size 1 "
        "--data.steps_per_epoch 2 --data.workers 0 --trainer.enable_progress_bar false --trainer.enable_model_summary false"
    ),
    "python train.py test": "--trainer.accelerator cpu --trainer.enable_progress_bar false",
    "python study.py": "--model.steps 2 --model.precision fp32 --trainer.accelerator cpu",
    "python -m reports.classical": "--codecs WebP",
    "python -m lightning_modules.calibration": "--limit 1",
    "python reports/distortions.py": "--steps 2 --crop 64",
}
"""Options behind a command's own that make it one of seconds."""

PLACEHOLDERS = {
    "DIR": "photographs",
    "KODAK": "photographs",
    "kodak": "photographs",
    "PHOTO": "photo.png",
    "FILE": "photo.sga",
    "CODEC/QUALITY": "scale_hyperprior/mse_4",
    "length/LENGTH": "length/smoke",
    "RUN": "study/fast",
    "RUN/best.ckpt": "trained/best.ckpt",
    "STUDY": "study",
    "STUDY/classical": "study/classical",
}
"""Words of the pages and what stands in their place; what follows ``-o`` or ``--output`` is a folder of the command's own."""

OF_CONTEXT = {
    ("python refine.py", "FILE"): "checkpoints/variable_rate_scale_hyperprior.safetensors",
    ("python train.py test", "RUN/config.yaml"): "trained/config.yaml",
    ("python train.py test", "RUN"): "trained",
    ("python train.py fit", "..."): "--config scale_hyperprior/mse_4 --data.root photographs",
    ("python reports/checkpoints.py", "..."): "",
    ("python study.py", "methods"): "one_run.yaml",  # tests/configs/test_studies.py plans every study of the project
    ("python -m lightning_modules.calibration", "RUN/last.ckpt"): "checkpoints/variable_rate_scale_hyperprior.safetensors",
    ("python reports/distortions.py", "PHOTO"): "large/c.png",
    ("python -m compressai.utils.eval_model", "DIR"): "large",
}
"""The same where it depends on the command."""


def make(words: list[str], _: Path) -> None:
    subprocess.run([*words[:1], "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)


def pip(words: list[str], _: Path) -> None:
    (what,) = words[2:]
    project, _, extra = what.partition("[")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert project == "." and (not extra or extra.rstrip("]") in extras)


def tensorboard(words: list[str], _: Path) -> None:
    from tensorboard.program import TensorBoard

    TensorBoard().configure(words)


def sbatch(words: list[str], _: Path) -> None:
    (template,) = (ROOT / word for word in words if word.endswith(".sbatch"))
    subprocess.run(["bash", "-n", template], check=True)
    for variable in words[: words.index("sbatch")]:
        assert f"${{{variable.partition('=')[0]}:" in template.read_text()


def torchrun(words: list[str], world: Path) -> None:
    """All but the launch: the options of the script."""
    script = words.index("train.py")
    run(["python", *words[script:], "--print_config"], world)


def fetch(words: list[str], _: Path) -> None:
    assert words[-1] in {*SETS, "NAME"}


def benchmark(words: list[str], _: Path) -> None:
    known = set(re.findall(r'add_argument\("(--[\w-]+)"', (ROOT / words[1]).read_text()))
    assert {word for word in words if word.startswith("--")} <= known


def completion(_: list[str], world: Path) -> None:
    run(["sga", "--print-completion", "bash"], world)


def nothing(_: list[str], __: Path) -> None:
    pass


def of_kodak(words: list[str], world: Path) -> None:
    assert run(words, world) == 2


NOT_RUN: dict[str, tuple[str, Callable[[list[str], Path], None]]] = {
    "make": ("installs, or runs the tests, of which this is one; its targets are resolved", make),
    "pip": ("tests/sga/test_wheel.py installs the wheel; the extras are looked up", pip),
    "tensorboard": ("serves until it is stopped; its options are parsed", tensorboard),
    "sbatch": ("needs a Slurm, on which tests/slurm runs the templates; their variables are looked up", sbatch),
    "torchrun": ("starts processes, as tests/test_train_distributed.py does; the script's options are parsed", torchrun),
    "python -m data.fetch": ("downloads; the set is looked up", fetch),
    "python -m reports.published_rates": (
        "needs Kodak; of the study here it is one line, and test_rd_reports.py has its table",
        of_kodak,
    ),
    "python benchmarks/": ("takes minutes, and measures nothing beside other work; its options are looked up", benchmark),
    "eval": ("is the shell's; the script that it evaluates is printed", completion),
    ".": ("is the shell's", nothing),
}
"""Commands that no test can run by how they begin: why, and what is checked of them in place of that."""


def beginning(words: list[str]) -> str:
    """The command without its arguments: ``sga encode``, ``python train.py fit``, ``python -m reports``."""
    if words[0] == "python":
        return " ".join(words[: 3 if words[1] in ("-m", "codec.py", "train.py") else 2])
    return " ".join(words[: 2 if words[0] == "sga" else 1])


def commands(page: str) -> list[str]:
    """Lines of the page's blocks of shell, and what is a command with arguments among its words in code."""
    text = (ROOT / page).read_text()
    blocks = [block.replace("\\\n", " ") for language, block in FENCE.findall(text) if language == "bash"]
    found = [line for block in blocks for line in block.splitlines() if line.strip()]
    programs = ("python", "sga", "make", "pip", "tensorboard", "torchrun", "sbatch", "srun", "eval", ".")
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        words = code.split()
        if len(words) > 1 and words[0] in programs and len(words) > len(beginning(words).split()):
            found.append(code)
    return [shlex.join(word for word in shlex.split(line, comments=True) if word != "&") for line in found]


def same(command: str) -> str:
    """What is equal for commands that do the same: a set of images has several names, and ``sga report`` two."""
    return re.sub(r"\b(kodak|KODAK)\b", "DIR", command).replace("python -m reports ", "sga report ")


ALL = {same(command): command for page in reversed(PAGES) for command in reversed(commands(page))}
"""One of those that are the same, the first."""


def substituted(words: list[str], world: Path) -> list[str]:
    """The words with what the test has made in place of names, and the options that make the command short."""
    name = beginning(words)
    replaced: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if (name, word) in OF_CONTEXT:
            replaced += shlex.split(OF_CONTEXT[name, word])
        elif before in ("-o", "--output") and word.isupper():
            replaced.append(f"{word.lower()}_{len(list(world.iterdir()))}")
        elif re.match("--(model.)?target", before):  # one that a few steps reach
            base = encode(load(), world / ("photo.png" if name == "sga encode" else "photographs/a.png")).quality
            replaced += [str(base.bpp if before.endswith("bpp") else base.psnr_db)]
        else:
            replaced.append(PLACEHOLDERS.get(word, "fast" if word == "NAME" else word))
    short = SHORT.get(name, "")
    if any("--target" in word or "--model.target" in word for word in words):
        short = short.replace("steps 2", "steps 30")  # fewer reach no target, and many continuations follow
        short += " --data.limit 1" if name == "python refine.py" else ""
    return [*replaced, *shlex.split(short)]


def run(words: list[str], world: Path) -> int:
    """Runs the command in this process, as the interpreter would; its exit code."""
    words = substituted(words, world)
    if words[0] == "sga":
        words = ["python", "-m", *words]
    assert words[0] == "python"
    module = words[1] == "-m"
    sys.argv = words[2:] if module else words[1:]
    try:
        if module:
            runpy.run_module(words[2], run_name="__main__", alter_sys=False)
        else:
            runpy.run_path(words[1], run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like the checkout, with what the commands of the pages are about."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on pictures this small, several wait for one another more than they compute
    folder = tmp_path_factory.mktemp("world")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (folder / path.name).symlink_to(path)
    photographs, photo = folder / "photographs", str(folder / "photo.png")
    photographs.mkdir()
    image = read_image(sample_paths()[0])
    write_image(image[:, 60:124, 150:214], photographs / "a.png")
    write_image(image[:, 260:324, 150:214], photographs / "b.png")
    (folder / "large").mkdir()
    write_image(image[:, 60:252, 150:342], folder / "large/c.png")
    write_image(image[:, 60:124, 150:214], Path(photo))
    assert (ROOT / "configs/studies/methods.yaml").is_file()
    (folder / "one_run.yaml").write_text("runs: {sga: {config: sga}}")
    short = shlex.split(SHORT["python refine.py"])
    assert train.main(arguments(photographs, folder / "trained", "--data.valid", str(photographs), "--trainer.max_steps=2")) == 0
    assert refine.main(["--config=fast", f"--data.root={photographs}", f"--output={folder / 'study/fast'}", *short]) == 0
    assert codec.main(["encode", photo, "-o", str(folder / "photo.sga"), "--steps=0"]) == 0
    assert codec.main(["export", "embedded", "-o", str(folder / "model.pth.tar")]) == 0
    yield folder
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of runpy: the module has been imported before
@pytest.mark.parametrize("command", list(reversed(ALL.values())))
def test_a_command_runs(command: str, world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = shlex.split(command)
    name = " ".join(word for word in words if not re.match("[A-Z]+=", word))
    for start, (reason, check) in NOT_RUN.items():
        if name == start or name.startswith(start if start.endswith("/") else f"{start} "):
            assert reason
            check(words, world)
            return
    code, errors = run(words, world), capfd.readouterr().err
    assert code == 0, errors


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        assert {language for language, _ in FENCE.findall((ROOT / page).read_text())} <= {"bash", "python", "text"}, page


def test_the_options_of_the_readme_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = re.findall(r"^\| option \|.*?\n\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    with pytest.raises(SystemExit):
        refine.main(["--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: refine.py ")
    named = set(re.findall(r"`(--[\w.]+)", table))
    assert len(named) > 10 and named <= set(re.findall(r"--[\w.]+", printed))


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_the_layout_of_the_readme_is_that_of_the_tree() -> None:
    (layout,) = re.findall(r"^## Layout\n.*?```text\n(refine.*?)```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    folder, seen = ROOT, set()
    for line in layout.splitlines():
        inside = folder if line.startswith(" ") else ROOT
        names = re.findall(r"[\w]+(?:\.py|/)", line)
        if not line.startswith(" ") and names[0].endswith("/"):
            folder = inside = ROOT / names[0]
        for name in names:
            assert (inside / name).exists() or (ROOT / name).exists() or (inside / names[0] / name).exists(), name
        seen |= {name.rstrip("/") for name in names}
    top = {path.name for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert top - {"hatch_build.py"} <= seen
