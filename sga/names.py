"""Names of files as text that every terminal, JSON, CSV and HTML file can hold."""

from __future__ import annotations

from os import PathLike, fspath
from unicodedata import category


def escaped(name: str | PathLike[str]) -> str:
    r"""A name or path whose bytes outside UTF-8 and control characters are written as escapes (``\xff``, ``\n``)."""
    # Python holds a byte that is not UTF-8 as a lone surrogate, U+DC80 ... U+DCFF, which no encoder takes.
    return "".join(
        f"\\x{ord(c) - 0xDC00:02x}"
        if "\udc80" <= c <= "\udcff"
        else c.encode("unicode_escape").decode()
        if category(c) in ("Cc", "Cs")
        else c
        for c in fspath(name)
    )
