"""A job of ``refine.py``: whether it can continue in its folder, and its outcome."""

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
from lightning_modules.ownership import Owner, refuse_foreign
from lightning_modules.refinement_module import RefinementModule
from sga.codecs.checkpoint import EMBEDDED
from sga.files import write_atomically
from sga.runs.claims import claimed, holder, sweep_job
from sga.runs.folder import CONFIG, IMAGES, claim, is_claimed, names_with_results, read_failures
from sga.runs.results import is_whole, read_finished, read_result
from sga.runs.summary import summarise

FORMER_NAMES = {
    '"sga.refinement.expectation.': '"lightning_modules.relaxation.',
    '"sga.refinement.rounding.': '"lightning_modules.rounding.',
    '"sga.refinement.schedules.': '"lightning_modules.temperature.',
}
"""Module prefixes of the methods' classes and the names they had in earlier versions, to recognise jobs of those versions."""

SEED_RULE = "pixels"
"""Property of an image that seeds its noise, together with the seed of the run. Earlier versions used the image's name."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
        left: Names of the unfinished images of this process's share.
        held: Names of those of them that another process is refining now.
        missed: Message per finished image of the share whose file misses the target, by name.
        failures: Reason why the last attempt at an unfinished image failed, by name: over the whole job once it is over, until then
            over the share.
        summary: Content of ``summary.json``; ``None`` while other processes work on the job.
    """

    left: Sequence[str]
    held: Sequence[str]
    missed: Mapping[str, str]
    failures: Mapping[str, str]
    summary: Mapping[str, Any] | None


@dataclass(frozen=True)
class Job:
    """A refinement of images into a folder, as one process sees it; any number of processes can share a job.

    Attributes:
        output: Folder of the job.
        settings: Settings of the module by the names of its arguments, in plain types; they and the weights determine the results.
        module: Module that refines.
        files: Images of the whole job.
        beyond: Further images of the same set, whose results may be in the folder too.
        shard: ``(I, N)``: this process does every N-th image, from the I-th on; ``None``: all of them.
        config: Content of ``config.yaml``: all settings of the command in YAML, with ``seed:`` and ``model:``.
        name: Name of the configuration, for tables.
        compared: Name of the image that ``comparison.png`` shows, if any.
    """

    output: Path
    settings: Mapping[str, Any]
    module: RefinementModule
    files: Sequence[ImageFile]
    beyond: Sequence[ImageFile] = ()
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
        """Images of this process, finished or not."""
        return share_of(self.files, self.shard)

    @property
    def of_shard(self) -> str:
        """The shard as a phrase of messages, such as `` of shard 0/4``; empty without shards."""
        return " of shard {}/{}".format(*self.shard) if self.shard else ""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that determines a result: settings of the module, weights (not their path), and the rule of the seeds."""
        return _hash({**self._deciding, "seed_rule": SEED_RULE})

    @property
    def _former_fingerprint(self) -> str:
        """Hash of the same settings in versions where noise depended on the names of images."""
        return _hash(self._deciding, FORMER_NAMES)

    @property
    def _deciding(self) -> dict[str, Any]:
        loaded, objective = self.module.loaded, self.module.objective
        known = {"checkpoint": loaded.model_hash.hex(), "lmbda": objective.lmbda, "distortion": objective.distortion}
        return {**self.settings, **known}

    def begin(self) -> frozenset[str]:
        """Names of the finished images of the share; claims the folder for this job, and creates it where it is missing.

        Raises:
            ValueError: The folder is a file, or holds results of other settings or of other images, or no image has the name
                :attr:`compared`.
        """
        refuse_foreign(self.output, Owner.REFINEMENT)
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
            if is_whole(self.output, file.name, content):
                finished.add(file.name)
        if foreign or not claim(self.output, fingerprint):
            raise ValueError(self._refusal())
        sweep_job(self.output)
        if strangers := self._strangers():
            raise ValueError(
                f"{self.output} holds results of {len(strangers)} images that are not in this job's folder of images "
                f"({', '.join(strangers[:5])}): choose another --output, or delete their files in {self.output / IMAGES}"
            )
        return frozenset(finished)

    def _strangers(self) -> list[str]:
        """Names of the images that the folder has results of, or that are being refined into it, and that this job's set lacks.

        An image may have another name by now, as when one of the same name has been added to the set.
        """
        files = (*self.files, *self.beyond)
        unknown = sorted({*names_with_results(self.output), *claimed(self.output)}.difference(file.name for file in files))
        if not unknown:
            return []
        sources = {file.sha256() for file in files if file.path.is_file()}
        found = {name: read_result(self.output, name) for name in unknown}
        return [name for name, result in found.items() if result is None or result[1].get("source") not in sources]

    def write_config(self) -> None:
        """Writes ``config.yaml``."""
        write_atomically(self.output / CONFIG, self.config.encode())

    def finish(self) -> Outcome:
        """Outcome of the share; of the whole job once every image outside the share is finished or has failed.

        In the second case it writes ``results.csv``, ``summary.json`` and the job's row of TensorBoard's table.

        Raises:
            ValueError: A result is of other settings.
        """
        share = [file.name for file in self.share]
        left = [name for name in share if read_finished(self.output, name) is None]
        held = [name for name in left if holder(self.output, name) is not None]
        others = set(self.names).difference(share, names_with_results(self.output))
        if held or len(read_failures(self.output, others)) < len(others):
            return Outcome(left, held, self._targets_missed(), read_failures(self.output, left), None)
        summary = summarise(self.output, self.names, self.fingerprint)
        if summary["finished"]:
            row = settings_row(self.module, self.name, str(self.settings.get("checkpoint", EMBEDDED)))
            write_hparams(self.output, row, summary["means"])
        return Outcome(left, held, self._targets_missed(), summary["failures"], summary)

    def _targets_missed(self) -> dict[str, str]:
        """Message per finished image of the share whose file misses the target, by name."""
        target = self.module.target
        if target is None:
            return {}
        found = (read_result(self.output, file.name) for file in self.share)
        missed = (result for result, _ in filter(None, found) if not target.reached(result.refined.bpp, result.refined.psnr_db))
        return {result.image: target.missed(result.refined.bpp, result.refined.psnr_db) for result in missed}

    def _refusal(self) -> str:
        """Error message for a folder of other settings, with the options that differ where they can be found."""
        if is_claimed(self.output, self._former_fingerprint):
            return f"{self.output} belongs to a job of an earlier version, whose noise differs: choose another --output"
        options = self._different_options()
        if names_with_results(self.output):
            return f"{self.output} holds results of other settings{options}: choose another --output"
        ended = "or delete the folder if that job has ended"
        return f"{self.output} belongs to a job of other settings{options}, without results yet: choose another --output, {ended}"

    def _different_options(self) -> str:
        """Options that differ from those in the folder, in brackets; empty where they cannot be found."""
        try:
            there, here = _options((self.output / CONFIG).read_text()), _options(self.config)
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return ""
        names = [f"--{name}" for name in {**there, **here} if there.get(name) != here.get(name)]
        return f" ({', '.join(names)})" if names else ""


def _hash(settings: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str:
    """Hash of settings, after ``names`` are replaced by other names: 16 hexadecimal digits."""
    return hashlib.sha256(_text(settings, names or {}).encode()).hexdigest()[:16]


def _text(settings: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Settings as a JSON text, equal for equal settings; ``names`` are replaced in it."""
    text = json.dumps(settings, sort_keys=True, default=str)
    for name, other in names.items():
        text = text.replace(name, other)
    return text


def _options(config: str) -> dict[str, Any]:
    """Settings of a ``config.yaml`` that determine results, by the names of their options."""
    content = yaml.safe_load(config)
    options: dict[str, Any] = {"seed": content["seed"], **{f"model.{key}": value for key, value in content["model"].items()}}
    return {name: json.loads(_text({"value": value}, FORMER_NAMES)) for name, value in options.items()}
