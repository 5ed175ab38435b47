"""Values that ``compare_commits.py`` reads from the files of a case, and their bitwise comparison."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Facts = dict[str, dict[str, Any]]
"""Values by file and item: a tensor, bytes, or an object that ``repr`` distinguishes."""

OF_THE_MACHINE = re.compile(r"seconds|throughput|memory|(^|[/_])time")
"""Pattern of the columns and curves that differ from run to run."""

OF_THE_PLACE = {"fingerprint", "checkpoint"}
"""Entries of JSON files that depend on paths or on the names of classes."""

TABLES = (".csv", ".json")
"""Endings of files in which an item that only one side has is not a difference: columns come and go."""

WEIGHTS = ("state_dict", "current_model_state", "optimizer_states", "global_step")
"""Entries of a Lightning checkpoint that are compared; the others depend on paths and on names of classes."""


@dataclass
class Comparison:
    """Comparison of the two outputs of a case.

    Attributes:
        values: Number of values that were compared.
        differences: Description of each difference, in one line.
        one_sided: Items that only one side has and that are not differences: ``(side, kind of file, item)``.
    """

    values: int = 0
    differences: list[str] = field(default_factory=list)
    one_sided: set[tuple[str, str, str]] = field(default_factory=set)


def read_facts(folder: Path) -> Facts:
    """All compared values in the files below the folder of a case."""
    facts: Facts = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in READERS and path.is_file():
            facts[name] = READERS[path.suffix](path)
        elif path.is_dir() and any(path.glob("events.out.tfevents.*")):
            facts[name] = _curves(path)
    return facts


def compare_facts(old: Facts, new: Facts) -> Comparison:
    """Comparison of the files of a case.

    A file or item that the new side lacks is a difference, except items of :data:`TABLES`. Additional ones are not.
    """
    comparison = Comparison()
    for file in sorted({*old, *new}):
        before, after = old.get(file), new.get(file)
        if after is None:
            comparison.differences.append(f"{file}: not written")
        elif before is None:
            comparison.one_sided.add(("new", _kind(file), "the file"))
        else:
            _compare_file(file, before, after, comparison)
    return comparison


def _compare_file(file: str, before: Mapping[str, Any], after: Mapping[str, Any], comparison: Comparison) -> None:
    for item in sorted({*before, *after}):
        if item in before and item in after:
            comparison.values += 1
            if not equal(before[item], after[item]):
                comparison.differences.append(f"{file}: {item}: {describe(before[item], after[item])}")
        elif item in after or file.endswith(TABLES):
            comparison.one_sided.add(("new" if item in after else "old", _kind(file), item.split(" of ")[0]))
        else:
            comparison.differences.append(f"{file}: {item}: not written")


def equal(before: Any, after: Any) -> bool:
    """Whether two values are equal bit by bit; NaN equals itself."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        alike = before.dtype == after.dtype and before.shape == after.shape
        return alike and torch.equal(*(value.contiguous().reshape(-1).view(torch.uint8) for value in (before, after)))
    return type(before) is type(after) and repr(before) == repr(after)


def describe(before: Any, after: Any) -> str:
    """Short description of how two values differ."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.dtype != after.dtype or before.shape != after.shape:
            return f"{before.dtype} {list(before.shape)} -> {after.dtype} {list(after.shape)}"
        return f"up to {(before.double() - after.double()).abs().max():.3g} apart"
    if isinstance(before, bytes) and isinstance(after, bytes):
        first = next((i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), min(len(before), len(after)))
        return f"{len(before)} -> {len(after)} bytes, different from byte {first} on"
    if isinstance(before, list) and isinstance(after, list):
        for one, other in zip(before, after, strict=False):
            if not equal(one, other):
                return f"{one} -> {other}"
        return f"{len(before)} -> {len(after)} points"
    return f"{before!r} -> {after!r}"


def _kind(file: str) -> str:
    """Kind of a file: one name for all similar files of its folder."""
    path = Path(file)
    if path.suffix == ".csv":
        return file
    return str(path.with_stem("*")) if path.suffix in READERS else "curves"


def _rows(path: Path) -> dict[str, Any]:
    """Cells of a CSV by the column and the image of the row; the order of the columns does not matter."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = {
        f"{column} of {row['image']}": _number(value)
        for row in rows
        for column, value in row.items()
        if not OF_THE_MACHINE.search(column)
    }
    return {"rows": [row["image"] for row in rows], **cells}


def _entries(path: Path) -> dict[str, Any]:
    """Values of a JSON file by their paths in it, without those of the machine or of its folders."""
    entries = _leaves(json.loads(path.read_text()))
    return {name: value for name, value in entries if not OF_THE_MACHINE.search(name) and name not in OF_THE_PLACE}


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Values in nested mappings and lists, each with its path."""
    if isinstance(content, Mapping | list | tuple) and content:
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in pairs:
            yield from _leaves(value, f"{name}/{key}" if name else str(key))
    else:
        yield name, content


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _curves(folder: Path) -> dict[str, Any]:
    """Scalars, as lists of (step, value), and pictures in the event files of a folder, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not OF_THE_MACHINE.search(tag)]
    found: dict[str, Any] = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    for tag in events.Tags()["images"]:
        for event in events.Images(tag):
            found[f"{tag} at {event.step}"] = _decoded(io.BytesIO(event.encoded_image_string))
    return found


def _decoded(file: Path | io.BytesIO) -> Tensor:
    return torch.from_numpy(np.array(Image.open(file)))


def _torch_file(path: Path) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    kept = {name: content[name] for name in WEIGHTS if name in content} if "global_step" in content else content
    return dict(_leaves(kept))


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()} | {"metadata": sorted((file.metadata() or {}).items())}  # noqa: SIM118


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".bin": lambda path: {"bytes": path.read_bytes()},
    ".png": lambda path: {"pixels": _decoded(path)},
    ".txt": lambda path: {"text": path.read_text()},
    ".csv": _rows,
    ".json": _entries,
    ".ckpt": _torch_file,
    ".tar": _torch_file,
    ".safetensors": _safetensors,
}
