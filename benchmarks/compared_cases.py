"""Cases of ``compare_commits.py``: commands that take seconds, and the pictures and checkpoints that they share."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

OUT, SHARED = "@OUT", "@SHARED"
"""Placeholders in a command: the folder of its case, and the folder of the files that all cases read."""

SEED = 4711
"""Seed of every image's noise, on both sides."""

PICTURES = {
    "odd/astronaut": ("astronaut.png", (180, 60, 277, 135)),
    "odd/coffee": ("coffee.png", (200, 150, 330, 216)),
    "same/chelsea": ("chelsea.png", (100, 60, 197, 135)),
    "same/rocket": ("rocket.jpg", (270, 200, 380, 320)),
    "large/face": ("astronaut.png", (150, 20, 326, 212)),
}
"""Photograph of scikit-image, and left, upper, right and lower pixel of its crop, by folder and name of the picture. Pictures of
``odd`` have two padded sizes, those of ``same`` one; only the one of ``large`` is large enough for MS-SSIM."""

PHOTOGRAPHS = ("chelsea.png", "rocket.jpg")
"""Training images; one is a JPEG file, which training reduces before it crops."""

CHECKPOINTS = "checkpoints"
EMBEDDED = "variable_rate_scale_hyperprior"
SIZES = ("--model.codec.init_args.N=8", "--model.codec.init_args.M=12")
CODECS: dict[str, tuple[str, ...]] = {
    "mean_scale": ("mean_scale_hyperprior", *SIZES),
    "context_model": ("mean_scale_hyperprior", "--model.codec=ContextModelCodec", *SIZES),
    "cheng2020_anchor": ("cheng2020_anchor", SIZES[0]),
    "cheng2020_attention": ("cheng2020_attention", SIZES[0]),
}
"""Codecs without a shipped checkpoint: name of a file of ``configs/train``, and options, by the name of the case."""


@dataclass(frozen=True)
class Case:
    """Commands that run one after the other and write into one folder.

    Attributes:
        name: Name of the case and of its folder.
        commands: Words of each command: a script of the tree and its arguments; ``> FILE`` at the end keeps its output.
        needs: Name of the case whose checkpoint it reads, if any.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    needs: str | None = None


def all_cases(configs: Iterable[str], own_seeds: bool) -> list[Case]:
    """All cases.

    Args:
        configs: Names of the files of ``configs/refine``.
        own_seeds: Whether ``codec.py`` keeps its default seed instead of :data:`SEED`.
    """
    return [*training_cases(), *refinement_cases(configs), *codec_command_cases(() if own_seeds else (f"--seed={SEED}",))]


def refinement_cases(configs: Iterable[str]) -> Iterator[Case]:
    """Cases of ``refine.py``: each configuration, each kind of checkpoint, and the options."""
    for config in configs:
        yield Case(f"refine_{config}", (_refine(config=config),))
    yield Case("refine_bf16", (_refine(precision="bf16"),))
    yield Case("refine_no_steps", (_refine(steps=0),))
    yield Case("refine_batch", (_refine("--data.batch_size=2", pictures="same"),))
    yield Case("refine_batch_sga", (_refine("--data.batch_size=2", pictures="same", config="sga"),))
    yield Case("refine_lmbda", (_refine("--model.lmbda=0.03"),))
    yield Case("refine_target_bpp", (_refine("--model.target_bpp=0.8"),))
    yield Case("refine_target_psnr", (_refine("--model.target_psnr=33"),))
    for name in ("scale_hyperprior_mse_lmbda0.0067", "scale_hyperprior_mse_lmbda0.013"):
        yield Case(f"refine_{name}", (_refine(_shipped(name)),))
    yield Case("refine_factorised", (_refine(_shipped("factorised_prior_mse_lmbda0.013")),))
    yield Case("refine_ms_ssim", (_refine(_shipped("scale_hyperprior_ms_ssim_lmbda16.64"), pictures="large"),))
    for codec in CODECS:
        # The last latents, since the encoder's own are often the best under a model that has learned nothing.
        words = _refine(f"--model.checkpoint={_trained(codec)}", "--model.select=last")
        yield Case(f"refine_{codec}", (words,), needs=f"train_{codec}")


def codec_command_cases(seed: tuple[str, ...]) -> Iterator[Case]:
    """Cases of ``codec.py``."""
    picture, file = f"{SHARED}/pictures/odd/astronaut.png", f"{OUT}/photograph.bin"
    encode = ("codec.py", "encode", picture, "-o", file, "--preset", "fast", "--steps", "5", *seed)
    decode = ("codec.py", "decode", file, "-o", f"{OUT}/photograph.png")
    yield Case("codec_encode", (encode, decode, ("codec.py", "info", file, ">", f"{OUT}/info.txt")))
    yield Case("codec_encode_target_bpp", ((*encode, "--target-bpp", "0.8"), decode))
    yield Case("codec_encode_target_psnr", ((*encode, "--target-psnr", "32"), decode))
    checkpoints = {"shipped": f"checkpoints/{EMBEDDED}.safetensors", "trained": _trained("cheng2020_anchor")}
    for name, checkpoint in checkpoints.items():
        exports = (("codec.py", "export", checkpoint, "-o", f"{OUT}/model{ending}") for ending in (".safetensors", ".pth.tar"))
        yield Case(f"codec_export_{name}", tuple(exports), needs="train_cheng2020_anchor" if name == "trained" else None)


def training_cases() -> Iterator[Case]:
    """Cases of ``train.py``; two steps each."""
    valid = f"--data.valid={SHARED}/pictures"
    scale = ("scale_hyperprior", *SIZES)
    for codec, words in CODECS.items():
        yield Case(f"train_{codec}", (_fit(*words),))
    test = ("train.py", "test", "--config", f"{OUT}/config.yaml", f"--data.test={SHARED}/pictures", "--output", OUT)
    yield Case("train_scale", (_fit(*scale, valid), test))
    resumed = tuple(_fit(*scale, valid, "--model.schedule=plateau", f"--trainer.max_steps={steps}") for steps in (2, 4))
    yield Case("train_resumed", resumed)
    average = ("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9", "--trainer.callbacks.use_buffers=false")
    yield Case("train_average_plateau", (_fit(*scale, *average, valid, "--model.schedule=plateau", "--model.plateau_patience=0"),))
    yield Case("train_bf16", (_fit(*scale, "--trainer.precision=bf16-mixed"),))
    ms_ssim = ("--model.distortion=ms_ssim", "--model.lmbda=16.64", "--data.crop_size=192", "--data.batch_size=1", *SIZES)
    yield Case("train_ms_ssim", (_fit("scale_hyperprior", *ms_ssim, valid),))
    yield Case("train_factorised_from_files", (_fit("factorised_prior", *SIZES, "--data.in_memory=false"),))


def make_shared(folder: Path) -> None:
    """Writes the pictures and training images, always the same, from the photographs that scikit-image installs."""
    import skimage.data
    from PIL import Image

    installed = Path(skimage.data.__file__).parent
    for name, (photograph, box) in PICTURES.items():
        path = folder / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(installed / photograph).convert("RGB").crop(box).save(path)
    (folder / "photographs").mkdir(exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copyfile(installed / name, folder / "photographs" / name)
    (folder / CHECKPOINTS).mkdir(exist_ok=True)


def enliven(trained: Path, target: Path) -> None:
    """Copies a Lightning checkpoint with larger weights; without them, all latents of so short a training would round to 0.

    The last convolution of the analysis, that of the hyper analysis and the context model get larger weights, and the medians of
    z are spread, so that symbols, means and tables differ from position to position.
    """
    content = torch.load(trained, map_location="cpu", weights_only=True)
    state = content["state_dict"]
    layers = {int(found[1]): key for key in state if (found := re.fullmatch(r"codec\.net\.g_a\.(\d+)\.weight", key))}
    state[layers[max(layers)]] *= 40
    state["codec.net.h_a.4.weight"] *= 10
    if "codec.net.context_prediction.weight" in state:
        state["codec.net.context_prediction.weight"] *= 3
    for key in state:
        if key.endswith(".quantiles"):
            state[key][:, 0, 1] = torch.linspace(-0.4, 0.4, len(state[key]))
    torch.save(content, target)


def _refine(*words: str, config: str = "fast", steps: int = 10, pictures: str = "odd", precision: str = "fp32") -> tuple[str, ...]:
    settings = (f"--model.steps={steps}", "--model.evaluate_every=5", f"--model.precision={precision}", "--trainer.accelerator=cpu")
    folders = ("--data.root", f"{SHARED}/pictures/{pictures}", "--output", OUT)
    return ("refine.py", "--config", f"configs/refine/{config}.yaml", *folders, *settings, *words)


def _fit(config: str, *words: str) -> tuple[str, ...]:
    configs = ("--config", f"configs/train/{config}.yaml", "--config", "configs/train/length/smoke.yaml")
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
    data = (f"--data.root={SHARED}/photographs", "--data.workers=0", "--data.crop_size=64", "--data.batch_size=2")
    return ("train.py", "fit", *configs, *data, *quiet, "--output", OUT, *words)


def _shipped(name: str) -> str:
    return f"--model.checkpoint=checkpoints/{name}.safetensors"


def _trained(codec: str) -> str:
    return f"{SHARED}/{CHECKPOINTS}/{codec}.ckpt"
