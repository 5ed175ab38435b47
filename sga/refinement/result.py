"""What a refinement of a batch tells of itself: while it goes on, and at its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sga.codecs.latents import Latents, Quantised

CURVES = ("loss", "bpp_y", "bpp_z", "psnr_db", "tau")
"""What ``curves`` hold of each step: the method's own, relaxed quantities."""

EVALUATED = ("rd_loss", "bpp", "psnr_db")
"""What ``evaluations`` hold of latents rounded hard: true R-D loss, bits per pixel by the densities, PSNR of the 8-bit image."""


@dataclass(frozen=True)
class Progress:
    """A refinement of B images after one of its hard evaluations, on the device.

    Attributes:
        curves: Curves of the steps that are done, ``[step, len(CURVES), B]``.
        evaluations: Up to now, ``[n, len(EVALUATED), B]``.
        evaluated_steps: Steps done before each hard evaluation; the last is ``step``.
        best_loss: True R-D loss of the latents that would be selected now, ``[B]``.
    """

    curves: Tensor
    evaluations: Tensor
    evaluated_steps: list[int]
    best_loss: Tensor


@dataclass(frozen=True)
class RefinementResult:
    """What a refinement found for a batch of B images.

    Attributes:
        base: The unrefined latents, hard-rounded.
        refined: The selected latents, hard-rounded.
        latents: The same before rounding.
        lmbda: Lambda of the loss when they were evaluated, ``[B]``.
        base_loss: True R-D loss of ``base``, estimated bits, 8-bit pixels: ``[B]``.
        refined_loss: The same of ``refined``.
        best_step: Steps after which the selected latents were reached, ``[B]``.
        curves: ``[steps, len(CURVES), B]``, fp32, on the CPU.
        evaluations: ``[n, len(EVALUATED), B]``, at each of ``evaluated_steps``, on the CPU.
        evaluated_steps: Steps done before each hard evaluation.
        seconds: Wall time of the whole batch.
    """

    base: Quantised
    refined: Quantised
    latents: Latents
    lmbda: Tensor
    base_loss: Tensor
    refined_loss: Tensor
    best_step: Tensor
    curves: Tensor
    evaluations: Tensor
    evaluated_steps: list[int]
    seconds: float

    def image(self, i: int) -> RefinementResult:
        """Of image ``i`` alone: a batch of 1."""
        one = slice(i, i + 1)
        return RefinementResult(
            base=self.base.image(i),
            refined=self.refined.image(i),
            latents=self.latents.image(i),
            lmbda=self.lmbda[one],
            base_loss=self.base_loss[one],
            refined_loss=self.refined_loss[one],
            best_step=self.best_step[one],
            curves=self.curves[..., one],
            evaluations=self.evaluations[..., one],
            evaluated_steps=self.evaluated_steps,
            seconds=self.seconds / len(self.lmbda),
        )

    def estimated_bpp(self, step: int) -> Tensor:
        """Bits per pixel, by the densities, of the latents that were evaluated after ``step`` steps: ``[B]``, on the CPU."""
        return self.evaluations[self.evaluated_steps.index(step), EVALUATED.index("bpp")]

    def check(self) -> None:
        """Checks ONE image's refinement.

        Raises:
            ValueError: A loss was not finite.
        """
        of_steps, of_files = self.curves[:, 0, 0].cpu(), self.evaluations[:, EVALUATED.index("rd_loss"), 0].cpu()
        at = [*range(1, len(of_steps) + 1), *self.evaluated_steps]
        wrong = [step for step, loss in zip(at, [*of_steps, *of_files], strict=True) if not torch.isfinite(loss)]
        if wrong:
            raise ValueError(
                f"refinement diverged: its loss is not a finite number at step {min(wrong)}; use a smaller learning rate "
                "(model.learning_rate), or fp32 (model.precision)"
            )

    def followed_by(self, after: RefinementResult) -> RefinementResult:
        """This refinement of ONE image and another that went on from its selected latents, as one."""
        done = len(self.curves)
        moved = int(after.best_step) > 0
        return replace(
            after,
            base=self.base,
            base_loss=self.base_loss,
            best_step=done + after.best_step if moved else self.best_step,
            curves=torch.cat([self.curves, after.curves]),
            evaluations=torch.cat([self.evaluations, after.evaluations[1:]]),
            evaluated_steps=self.evaluated_steps + [done + step for step in after.evaluated_steps[1:]],
            seconds=self.seconds + after.seconds,
        )

    def selecting(self, other: RefinementResult) -> RefinementResult:
        """With the latents that ``other``, an earlier part of the same refinement, has selected."""
        return replace(
            self,
            refined=other.refined,
            latents=other.latents,
            lmbda=other.lmbda,
            refined_loss=other.refined_loss,
            best_step=other.best_step,
        )
