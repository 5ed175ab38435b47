"""The embedded photographs: those that scikit-image installs, read from its files without a download."""

from __future__ import annotations

from pathlib import Path

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Names of their files; public domain or CC0, 512 x 512, 451 x 300, 600 x 400 and 640 x 427 pixels."""


def sample_paths() -> list[Path]:
    """Paths of the embedded photographs, in the order of their names.

    Raises:
        FileNotFoundError: The installed scikit-image lacks one.
    """
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    paths = [folder / name for name in PHOTOGRAPHS]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"scikit-image does not ship {path.name}: reinstall it (pip install scikit-image)")
    return paths
