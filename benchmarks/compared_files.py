"""What ``compare_commits.py`` reads from the files of a case, and how two of these compare: to the bit."""

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
"""File, item of it, value: a tensor, bytes, or what ``repr`` tells apart."""

OF_THE_MACHINE = re.compile(r"seconds|throughput|memory|(^|[/_])time")
"""Columns and curves that no two runs share."""

OF_THE_PLACE = {"fingerprint", "checkpoint"}
"""Entries of JSON files that depend on paths, or on the names of classes."""

TABLES = (".csv", ".json")
"""In these, an item that one side alone has is no difference: columns come and go."""

WEIGHTS = ("state_dict", "current_model_state", "optimizer_states", "global_step")
"""What is compared of a Lightning checkpoint; the rest names paths and classes."""


@dataclass
class Comparison:
    """Of one case.

    Attributes:
        values: How many were compared.
        differences: A line each.
        one_sided: What one side alone has without being different: ``(side, kind of file, item)``.
    """

    values: int = 0
    differences: list[str] = field(default_factory=list)
    one_sided: set[tuple[str, str, str]] = field(default_factory=set)


def read_facts(folder: Path) -> Facts:
    """Everything below the folder of a case that is compared."""
    facts: Facts = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in READERS and path.is_file():
            facts[name] = READERS[path.suffix](path)
        elif path.is_dir() and any(path.glob("events.out.tfevents.*")):
            facts[name] = _curves(path)
    return facts


def compare_facts(old: Facts, new: Facts) -> Comparison:
    """Compares the files of a case.

    A file or item that the new side lacks is a difference, but for items of :data:`TABLES`. What it has in addition is none.
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
    """To the bit; NaN equals itself."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        alike = before.dtype == after.dtype and before.shape == after.shape
        return alike and torch.equal(*(value.contiguous().reshape(-1).view(torch.uint8) for value in (before, after)))
    return type(before) is type(after) and repr(before) == repr(after)


def describe(before: Any, after: Any) -> str:
    """How two values differ, in some words."""
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
    """A name for all files of its folder that are alike."""
    path = Path(file)
    if path.suffix == ".csv":
        return file
    return str(path.with_stem("*")) if path.suffix in READERS else "curves"


def _rows(path: Path) -> dict[str, Any]:
    """Each cell by its column and the image of its row, whatever the order of the columns."""
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
    """Of a JSON file, by their paths in it."""
    entries = _leaves(json.loads(path.read_text()))
    return {name: value for name, value in entries if not OF_THE_MACHINE.search(name) and name not in OF_THE_PLACE}


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What nested mappings and lists hold, by their paths."""
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
    """Scalars, as (step, value), and pictures of the event files of a folder."""
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
