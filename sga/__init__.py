"""Refines the latents of neural image codecs into bitstreams that decode.

::

    import sga

    codec = sga.load()                                   # the embedded model, a checkpoint's path, or "zoo:..."
    result = sga.refine(codec, "photo.png", "fast")      # a path, a PIL image, a uint8 array or tensor
    result.save("photo.sga")
    image = sga.decode("photo.sga")                      # uint8 [3, H, W]

What has a name here is loaded at its first use, so that ``import sga`` itself takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sga.api import decode, encode, load, refine
    from sga.images import to_pil
    from sga.refinement.presets import preset

__version__ = "0.1.0"

__all__ = ["__version__", "decode", "encode", "load", "preset", "refine", "to_pil"]

_MODULES = {
    "decode": "sga.api",
    "encode": "sga.api",
    "load": "sga.api",
    "preset": "sga.refinement.presets",
    "refine": "sga.api",
    "to_pil": "sga.images",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
