"""The field's test sets by name: their sources, and the folders into which ``python -m data.fetch`` downloads them.

- ``kodak``: the Kodak Lossless True Color Image Suite, 24 photographs of 768 x 512 or 512 x 768 pixels, from
  https://r0k.us/graphics/kodak/. The checksums are those of the PNG files of that site; copies that were written anew have the same
  pixels but other checksums.
- ``tecnick``: TESTIMAGES of N. Asuni and A. Giachetti (https://testimages.org/), the 100 images RGB_OR_1200x1200 of the old
  sampling set, in the folder that SGA+'s official code names. No checksum is known: see :mod:`data.fetch`.
- ``clic``: the professional validation images of the Challenge on Learned Image Compression 2020, 41 photographs with sides of up
  to 2048 pixels, with the address and the checksum of TensorFlow Datasets (``clic``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.folders import find_images

FOLDER_VARIABLE = "SGA_DATA"
"""Environment variable that names the folder of the sets."""
CHECKSUMS = "SHA256SUMS"
"""Name of the file beside the images that :mod:`data.fetch` writes."""
LISTED = 5
"""Largest number of files that a message names."""


@dataclass(frozen=True)
class NamedSet:
    """A set of images that can be downloaded.

    Attributes:
        name: Name of the set and of its folder.
        images: Number of images.
        files: SHA-256 by address: of each PNG file, or of one zip file, where ``None`` means that it is not known.
        folder: Name of the folder in the zip file that holds the images; empty where the files are the images.
    """

    name: str
    images: int
    files: Mapping[str, str | None]
    folder: str = ""


KODAK_SHA256 = (
    "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
)

SETS = {
    named.name: named
    for named in (
        NamedSet(
            "kodak",
            24,
            {f"https://r0k.us/graphics/kodak/kodak/kodim{i:02d}.png": sha256 for i, sha256 in enumerate(KODAK_SHA256, 1)},
        ),
        NamedSet(
            "tecnick",
            100,
            {"https://sourceforge.net/projects/testimages/files/OLD/OLD_SAMPLING/testimages.zip/download": None},
            "RGB_OR_1200x1200",
        ),
        NamedSet(
            "clic",
            41,
            {
                "https://data.vision.ee.ethz.ch/cvl/clic/professional_valid_2020.zip": (
                    "00be38092ade2ab5163b65f7f6523d46c7bca147007f559adbb02c0afc236b7d"
                )
            },
            "valid",
        ),
    )
}


def folder_of(name: str) -> Path:
    """Folder of a named set: ``$SGA_DATA/NAME``, by default ``~/.cache/sga-lightning/NAME``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "~/.cache/sga-lightning").expanduser() / name


def images_of(root: str | Path) -> list[Path]:
    """Image files of a named set or of a folder (at any depth), sorted; for a file, the file alone.

    A file or folder with the name of a set takes precedence over the set.

    Raises:
        FileNotFoundError: There is no such file or folder, it holds no image, or the set has not been fetched.
        ValueError: The set is incomplete, or its folder holds other images too.
    """
    named = SETS.get(str(root))
    if named is None or Path(root).exists():
        return find_images(Path(root))
    folder = folder_of(named.name)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the set {named.name} is not in {folder}: fetch it (python -m data.fetch {named.name}), or name a folder of images"
        )
    paths = find_images(folder)
    if len(paths) != named.images:
        check_surplus(named, folder)
        raise ValueError(
            f"{folder} holds {len(paths)} images, and {named.name} has {named.images}: run python -m data.fetch {named.name}"
        )
    return paths


def check_surplus(named: NamedSet, folder: Path) -> None:
    """Refuses a folder with images that are not of the set; it does nothing where the names of the set's images are not known.

    Raises:
        ValueError: The folder holds other images; the message names some.
        FileNotFoundError: The folder holds no image.
    """
    known = read_checksums(folder / CHECKSUMS) if named.folder else {PurePosixPath(url).name for url in named.files}
    surplus = [str(name) for path in find_images(folder) if str(name := path.relative_to(folder)) not in known]
    if known and surplus:
        more = f" and {len(surplus) - LISTED} more" if len(surplus) > LISTED else ""
        raise ValueError(f"{folder} holds images that are not of {named.name}: move {', '.join(surplus[:LISTED])}{more} away")


def read_checksums(path: Path) -> dict[str, str]:
    """SHA-256 by name, from a file in the format of ``sha256sum``; empty where the file is missing.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.exists():
        return {}
    pairs = [line.split("  ", 1) for line in path.read_text().splitlines()]
    if not all(len(pair) == 2 and pair[1] == Path(pair[1]).name for pair in pairs):
        raise ValueError(f"{path} is damaged: delete it and run python -m data.fetch again")
    return {name: sha256 for sha256, name in pairs}
