"""Commands for a file: ``python codec.py encode photo.png -o photo.sga``, ``decode photo.sga -o photo.png``, ``info photo.sga``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sga import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command of ``sga`` on one file; ``arguments`` are by default those of the process."""
    return commands.main(arguments, prog="codec.py", jobs={})


if __name__ == "__main__":
    sys.exit(main())
