"""A job of ``refine.py``: may it go on in its folder, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from data.refinement_data import ImageFile, share_of
from lightning_modules.hparams import settings_row, write_hparams
from lightning_modules.refinement_module import RefinementModule
from sga.codecs.checkpoint import EMBEDDED
from sga.files import write_atomically
from sga.runs.folder import CONFIG, IMAGES, claim, is_claimed, names_with_results, read_failures
from sga.runs.results import read_result
from sga.runs.summary import summarise

FORMER_NAMES = {
    '"sga.refinement.expectation.': '"lightning_modules.relaxation.',
    '"sga.refinement.rounding.': '"lightning_modules.rounding.',
    '"sga.refinement.schedules.': '"lightning_modules.temperature.',
}
"""What the classes of methods were called before the core had a package of its own, for telling a job of then."""

SEED_RULE = "pixels"
"""What an image's noise depends on beside the seed; before this was part of a fingerprint, on the image's name."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        left: Names of the images of this process's share that are not finished.
        missed: Finished images of the share whose files are not what was asked for, by name, each with a line.
        failures: Why the last attempt at an unfinished image failed, by name: of the whole job where it is over, else of the share.
        summary: Content of ``summary.json``; ``None`` while other processes are at work on the job.
    """

    left: Sequence[str]
    missed: Mapping[str, str]
    failures: Mapping[str, str]
    summary: Mapping[str, Any] | None


@dataclass(frozen=True)
class Job:
    """Images, how they are refined, and the folder where their results go; one of any number of processes that do it.

    Attributes:
        output: Folder of the job.
        settings: Settings of the module by the names of its arguments, in plain types; with the weights, they decide the results.
        module: The module that refines.
        files: Images of the whole job.
        shard: ``(I, N)``: this process does every N-th image, from the I-th on; ``None``: all of them.
        config: Content of ``config.yaml``: all settings of the command in YAML, with ``seed:`` and ``model:``.
        name: Name of the configuration, for tables.
        compared: Name of the image that is drawn side by side at the end, if any.
    """

    output: Path
    settings: Mapping[str, Any]
    module: RefinementModule
    files: Sequence[ImageFile]
    shard: tuple[int, int] | None = None
    config: str = ""
    name: str = ""
    compared: str | None = None

    @property
    def names(self) -> list[str]:
        """Names of all images."""
        return [file.name for file in self.files]

    @property
    def share(self) -> list[ImageFile]:
        """Images of this process, whatever is finished of them."""
        return share_of(self.files, self.shard)

    @property
    def of_shard(self) -> str:
        """Which images are meant, for messages."""
        return " of shard {}/{}".format(*self.shard) if self.shard else ""

    @cached_property
    def fingerprint(self) -> str:
        """Names what decides a result: the settings of the model, its weights, wherever they lie, and the rule of the seeds."""
        return _hash({**self._deciding, "seed_rule": SEED_RULE})

    @property
    def _former_fingerprint(self) -> str:
        """What the same settings were named while noise depended on the names of images."""
        return _hash(self._deciding, FORMER_NAMES)

    @property
    def _deciding(self) -> dict[str, Any]:
        loaded, objective = self.module.loaded, self.module.objective
        known = {"checkpoint": loaded.model_hash.hex(), "lmbda": objective.lmbda, "distortion": objective.distortion}
        return {**self.settings, **known}

    def begin(self) -> frozenset[str]:
        """Names of the images of the share that are finished, once the folder, created where it is missing, is the job's.

        Raises:
            ValueError: The folder is a file, or holds results of other settings or of other images, or there is no image of the
                name that is to be compared.
        """
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"--output {self.output}: is a file, not a folder")
        if self.compared is not None and self.compared not in self.names:
            raise ValueError(f"--compare {self.compared}: no such image (the first are {', '.join(self.names[:5])})")
        fingerprint, foreign = self.fingerprint, False
        finished: set[str] = set()
        for file in self.share:
            found = read_result(self.output, file.name)
            if found is None:
                continue
            _, content = found
            foreign = foreign or content.get("fingerprint") != fingerprint
            if not foreign and content.get("source") != file.sha256():
                raise ValueError(
                    f"{self.output} holds the result of another image {file.name}: choose another --output, or delete "
                    f"{self.output / IMAGES / f'{file.name}.json'}"
                )
            finished.add(file.name)
        if foreign or not claim(self.output, fingerprint):
            raise ValueError(self._refusal())
        return frozenset(finished)

    def write_config(self) -> None:
        """Writes ``config.yaml``."""
        write_atomically(self.output / CONFIG, self.config.encode())

    def finish(self) -> Outcome:
        """What became of the share, and of the whole job where every image outside the share is finished or has failed.

        Of the whole job, ``results.csv``, ``summary.json`` and its row of TensorBoard's table are written.

        Raises:
            ValueError: A result is of other settings.
        """
        share = [file.name for file in self.share]
        left = [name for name in share if read_result(self.output, name) is None]
        others = set(self.names).difference(share, names_with_results(self.output))
        if len(read_failures(self.output, others)) < len(others):
            return Outcome(left, self._targets_missed(), read_failures(self.output, left), None)
        summary = summarise(self.output, self.names, self.fingerprint)
        if summary["finished"]:
            row = settings_row(self.module, self.name, str(self.settings.get("checkpoint", EMBEDDED)))
            write_hparams(self.output, row, summary["means"])
        return Outcome(left, self._targets_missed(), summary["failures"], summary)

    def _targets_missed(self) -> dict[str, str]:
        """Finished images of the share whose files are not what was asked for, by name, each with a line."""
        target = self.module.target
        if target is None:
            return {}
        found = (read_result(self.output, file.name) for file in self.share)
        missed = (result for result, _ in filter(None, found) if not target.reached(result.refined.bpp, result.refined.psnr_db))
        return {result.image: target.missed(result.refined.bpp, result.refined.psnr_db) for result in missed}

    def _refusal(self) -> str:
        """Why a job cannot go on in a folder of other settings, with the options that differ where that can be told."""
        if is_claimed(self.output, self._former_fingerprint):
            return f"{self.output} is that of a job of an earlier version, whose images had other noise: choose another --output"
        options = self._different_options()
        if names_with_results(self.output):
            return f"{self.output} holds results of other settings{options}: choose another --output"
        ended = "or delete the folder if that job has ended"
        return f"{self.output} is that of a job of other settings{options}, without results yet: choose another --output, {ended}"

    def _different_options(self) -> str:
        """In brackets, the options that differ from those in the folder of the job; empty where that cannot be told."""
        try:
            there, here = _options((self.output / CONFIG).read_text()), _options(self.config)
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return ""
        names = [f"--{name}" for name in {**there, **here} if there.get(name) != here.get(name)]
        return f" ({', '.join(names)})" if names else ""


def _hash(settings: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str:
    """A name for settings, in which ``names`` are called by other ones."""
    return hashlib.sha256(_text(settings, names or {}).encode()).hexdigest()[:16]


def _text(settings: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Settings as a text that is the same for the same settings."""
    text = json.dumps(settings, sort_keys=True, default=str)
    for name, other in names.items():
        text = text.replace(name, other)
    return text


def _options(config: str) -> dict[str, Any]:
    """The settings of a ``config.yaml`` that decide results, by the names of their options."""
    content = yaml.safe_load(config)
    options: dict[str, Any] = {"seed": content["seed"], **{f"model.{key}": value for key, value in content["model"].items()}}
    return {name: json.loads(_text({"value": value}, FORMER_NAMES)) for name, value in options.items()}
