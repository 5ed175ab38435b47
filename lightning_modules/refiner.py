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

from lightning_modules.adapting import adapt
from lightning_modules.codecs.adaptation import Adaptation
from lightning_modules.codecs.base import Codec, Latents, Quantised
from lightning_modules.rate_distortion import Objective, RateDistortion, TruePixels, rate_distortion
from lightning_modules.refinement_result import CURVES, Progress, RefinementResult
from lightning_modules.relaxation import relaxation
from lightning_modules.rounding import Noise, hard_round
from lightning_modules.settings import RefinerSettings
from lightning_modules.targets import LambdaController

Listener = Callable[[Progress], None]
"""Told after each hard evaluation but that of the start."""


@dataclass
class _Search:
    """The best latents so far, image by image, kept on the device, and the table of all that were evaluated."""

    latents: Latents
    adaptations: tuple[Adaptation | None, ...]
    score: Tensor  # [B], the least is the best
    loss: Tensor  # [B]
    lmbda: Tensor  # [B]
    best_step: Tensor  # [B]
    evaluations: list[Tensor]  # [3, B] each
    steps: list[int]

    @classmethod
    def of(cls, latents: Latents, rounded: Quantised, found: RateDistortion, score: Tensor, lmbda: float | Tensor) -> _Search:
        """Begins with the start of a refinement."""
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


def refine(
    codec: Codec,
    x: Tensor,
    sizes: Sequence[tuple[int, int]],
    objective: Objective,
    settings: RefinerSettings,
    seeds: Sequence[int],
    listener: Listener | None = None,
    controller: LambdaController | None = None,
    start: Latents | None = None,
) -> RefinementResult:
    """Optimises the latents of images under relaxed rounding and rounds them hard.

    Args:
        codec: With coding tables made. It is not changed.
        x: Padded images ``[B, 3, H, W]`` in [0, 1], fp32, on the codec's device.
        sizes: True ``(height, width)`` of each image: the distortion is of those pixels alone, and the bits of all latents count,
            a pixel of those.
        objective: What is minimised; it need not be that of the training.
        settings: How they are optimised.
        seeds: One an image, of its noise.
        listener: See :data:`Listener`.
        controller: Moves lambda, from that of its own objective on, and says which latents are the best.
        start: Real-valued latents to go on from; by default the encoder's, with a y of 0 where it stands for padding alone.

    Raises:
        ValueError: The objective is MS-SSIM and an image is too small for it.
    """
    started = time.perf_counter()
    x = x.contiguous(memory_format=torch.channels_last)
    true = TruePixels.of(x, sizes)
    exact = codec.frozen(torch.float32)
    fast = exact if settings.dtype == torch.float32 else codec.frozen(settings.dtype)
    noise = Noise(seeds, x.device)

    def evaluate(latents: Latents, adapting: bool) -> tuple[Quantised, RateDistortion]:
        with torch.no_grad():
            quantised = exact.quantise(latents, hard_round)
            if adapting:
                quantised = adapt(exact, quantised)
            x_hat = exact.synthesise(exact.dequantise(quantised)).clamp_(0, 1).mul_(255).round_().div_(255)
            return quantised, rate_distortion(x, x_hat, exact.bits(quantised), objective, true)

    def score(found: RateDistortion, progress: float) -> Tensor:
        if settings.select == "last":
            return torch.full_like(found.loss, -progress)
        return found.loss if controller is None else controller.score(found, progress)

    objective = objective if controller is None else controller.objective
    encoded, begin = _encoded(codec, x, true, objective) if start is None else (start, start)
    base, first = evaluate(encoded, settings.adapt_prior and start is not None)
    anew = settings.adapt_prior and settings.steps > 0 and start is None
    rounded = adapt(exact, exact.quantise(begin, hard_round)) if anew else base
    latents = begin.map(lambda value: value.detach().clone(memory_format=torch.channels_last).requires_grad_())
    optimizer = _optimizer(latents, settings)
    search = _Search.of(encoded, base, first, score(first, 0.0), objective.lmbda)
    relax = relaxation(settings.rounding, fast, noise, x, base, objective, true) if settings.steps else None
    if controller is not None:
        objective = controller.observe(first, 0.0)
    curves = torch.zeros(settings.steps, len(CURVES), len(x), device=x.device)

    for step in range(settings.steps):
        assert relax is not None
        tau = settings.temperature(step, settings.steps)
        factor = settings.learning_rate_factor(step, settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        relaxed = relax(latents, rounded.adaptations, tau, step, settings.steps)
        now = rate_distortion(x, relaxed.x_hat, relaxed.bits, objective, true, relaxed.excess)
        # Bits of the whole image rather than bits a pixel: Adam's epsilon then matters at no size.
        optimizer.zero_grad(set_to_none=True)
        (now.loss * true.count).sum().backward()
        relax.step(latents, optimizer)
        with torch.no_grad():
            curves[step] = torch.stack([now.loss, now.bpp_y, now.bpp_z, now.psnr_db, torch.full_like(now.loss, tau)])

        done = step + 1
        if done % settings.evaluate_every == 0 or done == settings.steps:
            rounded, hard = evaluate(latents, settings.adapt_prior)
            search.offer(done, latents, rounded, hard, score(hard, done / settings.steps), objective.lmbda)
            if controller is not None:
                objective = controller.observe(hard, done / settings.steps)
            if listener is not None:
                listener(Progress(curves[:done], torch.stack(search.evaluations), list(search.steps), search.loss))

    with torch.no_grad():
        refined = replace(codec.quantise(search.latents, hard_round), adaptations=search.adaptations)
    return RefinementResult(
        base=base,
        refined=refined,
        latents=search.latents,
        lmbda=search.lmbda,
        base_loss=first.loss,
        refined_loss=search.loss,
        best_step=search.best_step,
        curves=curves.cpu(),
        evaluations=torch.stack(search.evaluations).cpu(),
        evaluated_steps=search.steps,
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _encoded(codec: Codec, x: Tensor, true: TruePixels, objective: Objective) -> tuple[Latents, Latents]:
    """The encoder's latents; and the same with a y of 0 where it stands for padding alone, which need not look like anything, and
    the z of that.

    z describes such y together with others, and is slow to leave what the encoder chose for them. A y that begins less than half
    its width beyond the image still matters to its edge.
    """
    encoded = codec.analyse(x, codec.gain_for(objective.lmbda))
    if true.mask is None:
        return encoded, encoded
    stride = x.shape[-1] // encoded.y.shape[-1]
    half = stride // 2
    seen = F.max_pool2d(F.pad(true.mask, (half, 0, half, 0)), stride + half, stride)
    return encoded, codec.latents_of(encoded.y * seen, encoded.gain)


def _optimizer(latents: Latents, settings: RefinerSettings) -> torch.optim.Adam:
    groups = [{"params": [value], "base_lr": rate} for value, rate in zip(latents.tensors(), settings.learning_rates, strict=False)]
    return torch.optim.Adam(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def _table(now: RateDistortion) -> Tensor:
    return torch.stack([now.loss, now.bpp, now.psnr_db])
