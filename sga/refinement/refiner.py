"""Refines the latents of one batch of images: plain torch, no Lightning, no file.

The network is frozen; y and z are the parameters. Each image has its own loss and its own noise, and Adam treats every element
alone, so an image's result does not depend on the batch it is in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sga.allocator import keep_freed_memory
from sga.codecs.adaptation import Adaptation
from sga.codecs.base import Codec
from sga.codecs.latents import Latents, Quantised
from sga.distortion import TruePixels
from sga.rate_distortion import Objective, RateDistortion, rate_distortion
from sga.refinement.fit_prior import adapt
from sga.refinement.noise import Noise
from sga.refinement.relaxation import Problem
from sga.refinement.result import CURVES, Progress, RefinementResult
from sga.refinement.rounding import hard_round
from sga.refinement.settings import RefinerSettings, step_dtype
from sga.refinement.target import Controller

Listener = Callable[[Progress], None]
"""Called after each hard evaluation but that of the start."""


@dataclass
class _Best:
    """The best latents so far, image by image, kept on the device, and the table of all hard evaluations."""

    latents: Latents
    adaptations: tuple[Adaptation | None, ...]
    score: Tensor  # [B], the least is the best
    loss: Tensor  # [B]
    lmbda: Tensor  # [B]
    best_step: Tensor  # [B]
    evaluations: list[Tensor]  # [3, B] each
    steps: list[int]

    @classmethod
    def of(cls, latents: Latents, rounded: Quantised, found: RateDistortion, score: Tensor, lmbda: float | Tensor) -> _Best:
        """The start of a refinement."""
        adaptations = rounded.adaptations or (None,) * len(score)
        everywhere = torch.as_tensor(lmbda, dtype=score.dtype, device=score.device).expand_as(score)
        kept, step = latents.map(lambda value: value.detach().clone()), torch.zeros_like(score, dtype=torch.long)
        return cls(kept, adaptations, score, found.loss, everywhere, step, [_table(found)], [0])

    def offer(
        self, step: int, latents: Latents, rounded: Quantised, found: RateDistortion, score: Tensor, lmbda: float | Tensor
    ) -> None:
        """Takes up latents that were evaluated after ``step`` steps, where their score is less."""
        better = score < self.score
        for kept, new in zip(self.latents.tensors(), latents.tensors(), strict=True):
            kept.copy_(torch.where(better.view(-1, 1, 1, 1), new.detach(), kept))
        if rounded.adaptations:
            pairs = zip(better.tolist(), rounded.adaptations, self.adaptations, strict=True)
            self.adaptations = tuple(new if is_better else kept for is_better, new, kept in pairs)
        self.score = torch.where(better, score, self.score)
        self.loss = torch.where(better, found.loss, self.loss)
        self.lmbda = torch.where(better, lmbda, self.lmbda)
        self.best_step = torch.where(better, step, self.best_step)
        self.evaluations.append(_table(found))
        self.steps.append(step)

    def progress(self, curves: Tensor) -> Progress:
        """What a listener gets."""
        return Progress(curves, torch.stack(self.evaluations), list(self.steps), self.loss)

    @torch.no_grad()
    def result(self, codec: Codec, base: Quantised, base_loss: Tensor, curves: Tensor, seconds: float) -> RefinementResult:
        """The end of a refinement: the best latents, rounded hard."""
        refined = replace(codec.quantise(self.latents, hard_round, hard_round), adaptations=self.adaptations)
        return RefinementResult(
            base=base,
            refined=refined,
            latents=self.latents,
            lmbda=self.lmbda,
            base_loss=base_loss,
            refined_loss=self.loss,
            best_step=self.best_step,
            curves=curves.cpu(),
            evaluations=torch.stack(self.evaluations).cpu(),
            evaluated_steps=self.steps,
            seconds=seconds,
        )


def refine(
    codec: Codec,
    x: Tensor,
    sizes: Sequence[tuple[int, int]],
    controller: Controller,
    settings: RefinerSettings,
    seeds: Sequence[int],
    listener: Listener | None = None,
    start: Latents | None = None,
) -> RefinementResult:
    """The latents of images, optimised under relaxed rounding and rounded hard.

    Args:
        codec: Codec with coding tables made. It is not changed.
        x: Padded images ``[B, 3, H, W]`` in [0, 1], fp32, on the codec's device.
        sizes: True ``(height, width)`` of each image: the distortion is of those pixels alone, and bits count per pixel of those.
        controller: Loss that is minimised, and which latents are the best.
        settings: How they are optimised.
        seeds: Seed of the noise of each image.
        listener: See :data:`Listener`.
        start: Real-valued latents to go on from; by default the encoder's, with a y of 0 where it stands for padding alone.

    Raises:
        ValueError: The objective is MS-SSIM and an image is too small for it.
    """
    started = time.perf_counter()
    keep_freed_memory()
    x = x.contiguous(memory_format=torch.channels_last)
    true, noise = TruePixels.of(x, sizes), Noise(seeds, x.device)
    # Hard evaluations are in fp32, as files are; steps in the arithmetic that the settings ask for.
    exact, fast = codec.frozen(torch.float32), codec.frozen(step_dtype(settings.precision, x.device))
    evaluate = _HardEvaluation(exact, x, true)
    objective = controller.objective
    encoded, begin = _encoded(codec, x, true, objective.lmbda) if start is None else (start, start)
    base, first, rounded = _base(evaluate, encoded, begin, objective, settings, goes_on=start is not None)
    best = _Best.of(encoded, base, first, controller.score(first, 0.0), objective.lmbda)
    latents, optimizer = _parameters(begin, settings)
    if settings.steps:
        relax = settings.rounding.relaxation(Problem(fast, x, base, objective, true, noise))
    objective = controller.observe(first, 0.0)
    curves = torch.zeros(settings.steps, len(CURVES), len(x), device=x.device)
    for step in range(settings.steps):
        tau = settings.temperature(step, settings.steps)
        _set_learning_rates(optimizer, settings.learning_rate_factor(step, settings.steps))
        relaxed = relax(latents, rounded.adaptations, tau, step, settings.steps)
        now = rate_distortion(x, relaxed.x_hat, relaxed.bits, objective, true, relaxed.excess)
        # Bits of the whole image rather than bits per pixel: Adam's epsilon then matters at no size.
        optimizer.zero_grad(set_to_none=True)
        (now.loss * true.count).sum().backward()
        relax.step(latents, optimizer)
        curves[step] = torch.stack([now.loss, now.bpp_y, now.bpp_z, now.psnr_db, torch.full_like(now.loss, tau)]).detach()
        done = step + 1
        if done % settings.evaluate_every == 0 or done == settings.steps:
            # What the file tells its decoder about the prior is found anew here, and held until the next evaluation.
            rounded, hard = evaluate(latents, objective, settings.adapt_prior)
            best.offer(done, latents, rounded, hard, controller.score(hard, done / settings.steps), objective.lmbda)
            objective = controller.observe(hard, done / settings.steps)
            if listener is not None:
                listener(best.progress(curves[:done]))
    return best.result(codec, base, first.loss, curves, time.perf_counter() - started)


@dataclass(frozen=True)
class _HardEvaluation:
    """The true loss of latents: rounded hard, the image of 8 bits, bits by the densities.

    Attributes:
        codec: Codec in fp32.
        x: Padded images ``[B, 3, H, W]``.
        true: Pixels that count.
    """

    codec: Codec
    x: Tensor
    true: TruePixels

    @torch.no_grad()
    def __call__(self, latents: Latents, objective: Objective, adapting: bool) -> tuple[Quantised, RateDistortion]:
        """The rounded latents, with the adaptations of the prior that pay where ``adapting``, and what they cost."""
        quantised = self.codec.quantise(latents, hard_round, hard_round)
        if adapting:
            quantised = adapt(self.codec, quantised)
        x_hat = self.codec.synthesise(self.codec.dequantise(quantised)).clamp_(0, 1).mul_(255).round_().div_(255)
        return quantised, rate_distortion(self.x, x_hat, self.codec.bits(quantised), objective, self.true)


def _base(
    evaluate: _HardEvaluation, encoded: Latents, begin: Latents, objective: Objective, settings: RefinerSettings, goes_on: bool
) -> tuple[Quantised, RateDistortion, Quantised]:
    """The base, what it costs, and the rounded latents whose adaptations of the prior the first steps take.

    The base is the encoder's latents, in a file that adapts nothing. A refinement that ``goes_on`` from another's latents has those
    as its base, with what their file adapts.
    """
    base, first = evaluate(encoded, objective, settings.adapt_prior and goes_on)
    if goes_on or not (settings.adapt_prior and settings.steps):
        return base, first, base
    return base, first, adapt(evaluate.codec, evaluate.codec.quantise(begin, hard_round, hard_round))


@torch.no_grad()
def _encoded(codec: Codec, x: Tensor, true: TruePixels, lmbda: float | Tensor) -> tuple[Latents, Latents]:
    """The encoder's latents; and the same with a y of 0 where it stands for padding alone, which need not look like anything, and
    the cheaper of two z: the encoder's, and that of this y.

    z describes such y together with others, and is slow to leave what the encoder chose for them; but no training has shown h_a a y
    with an edge of zeros, and some models make much of it. A y that begins less than half its width beyond the image still matters
    to its edge.
    """
    encoded = codec.analyse(x, codec.gain_for(lmbda))
    if true.mask is None:
        return encoded, encoded
    stride = x.shape[-1] // encoded.y.shape[-1]
    half = stride // 2
    seen = F.max_pool2d(F.pad(true.mask, (half, 0, half, 0)), stride + half, stride)
    silent = replace(encoded, y=encoded.y * seen)
    own = codec.latents_of(silent.y, silent.gain)
    if own.z is None or silent.z is None:
        return encoded, own
    kept_bits, own_bits = (codec.bits(codec.quantise(latents, hard_round, hard_round)).total for latents in (silent, own))
    return encoded, replace(own, z=torch.where((own_bits < kept_bits).view(-1, 1, 1, 1), own.z, silent.z))


def _parameters(begin: Latents, settings: RefinerSettings) -> tuple[Latents, torch.optim.Adam]:
    """A copy of latents that is optimised, and what optimises it."""
    latents = begin.map(lambda value: value.detach().clone(memory_format=torch.channels_last).requires_grad_())
    groups = [{"params": [value], "base_lr": rate} for value, rate in zip(latents.tensors(), settings.learning_rates, strict=False)]
    return latents, torch.optim.Adam(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def _set_learning_rates(optimizer: torch.optim.Adam, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _table(now: RateDistortion) -> Tensor:
    return torch.stack([now.loss, now.bpp, now.psnr_db])
