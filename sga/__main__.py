"""``python -m sga``: the command ``sga``."""

import sys

from sga.commands import main

if __name__ == "__main__":
    sys.exit(main())
