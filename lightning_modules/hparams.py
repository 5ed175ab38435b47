"""HPARAMS table of TensorBoard: a row per job of ``refine.py``, with its settings and the measured means of its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.plugins.hparams import summary_v2 as hp  # its api module needs TensorFlow
from torch.utils.tensorboard import SummaryWriter

from lightning_modules.refinement_module import RefinementModule
from sga.quality import ALWAYS, LATER, METRICS, RD_LOSS, SECONDS, Column

SETTINGS = (
    *("config", "method", "a", "temperature", "tau_max", "steps", "learning_rate", "learning_rate_z"),
    *("adapt_prior", "lmbda", "target_bpp", "target_psnr", "checkpoint", "seed"),
)
MEANS: dict[str, Column] = {
    "rd_loss": RD_LOSS,
    **{name: METRICS[name] for name in ALWAYS},
    "seconds": SECONDS,
    **{name: METRICS[name] for name in LATER},
}
"""Columns of ``results.csv`` whose means are in the table, in its order."""


def settings_row(module: RefinementModule, config: str, checkpoint: str) -> dict[str, Any]:
    """Settings of a job by the names of :data:`SETTINGS`; those that its method does not have are left out.

    Args:
        module: Module of the job.
        config: Name of its configuration.
        checkpoint: Checkpoint as the user gave it.
    """
    settings, target = module.settings, module.target
    row = {
        "config": config,
        "method": settings.rounding.name,
        "a": getattr(settings.rounding, "a", None),
        "temperature": type(settings.temperature).__name__.removesuffix("Temperature"),
        "tau_max": getattr(settings.temperature, "tau_max", None),
        "steps": settings.steps,
        "learning_rate": settings.learning_rates[0],
        "learning_rate_z": settings.learning_rates[1],
        "adapt_prior": settings.adapt_prior,
        "lmbda": module.objective.lmbda,
        "target_bpp": target.value if target is not None and target.quantity == "bpp" else None,
        "target_psnr": target.value if target is not None and target.quantity == "psnr_db" else None,
        "checkpoint": checkpoint,
        "seed": module.seed,
    }
    return {name: value for name, value in row.items() if value is not None}


def write_hparams(output: Path, settings: Mapping[str, Any], means: Mapping[str, float | None]) -> None:
    """Writes the row of a job into ``tensorboard/`` of its folder; it replaces the row of an earlier attempt at the same job.

    Args:
        output: Folder of the job.
        settings: Settings of the job; see :func:`settings_row`.
        means: Means over the finished images; those of :data:`MEANS` are written as ``mean/NAME``.
    """
    folder = output / "tensorboard"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink(missing_ok=True)  # another task may finish the same job at the same time
    with SummaryWriter(str(folder)) as writer:
        assert writer.file_writer is not None
        # TensorBoard takes the columns from any one of the jobs that it shows, so each job names all columns.
        columns = [
            hp.Metric(f"mean/{name}", display_name=name, description=f"{column.heading}, {column.better} is better")
            for name, column in MEANS.items()
        ]
        writer.file_writer.add_summary(hp.hparams_config_pb([hp.HParam(name) for name in SETTINGS], columns))
        # Without an id of their own, two jobs of equal settings would share a row.
        trial = "/".join(output.resolve().parts[-2:])
        writer.file_writer.add_summary(hp.hparams_pb(dict(settings), trial_id=trial))
        for name in MEANS:
            if (value := means[name]) is not None:
                writer.add_scalar(f"mean/{name}", value)
