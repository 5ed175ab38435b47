"""Downloads of known files: whole and checked, or not there; an interrupted one continues where it stopped.

Neither pooch nor torch.hub resumes a download, so the standard library does it here.
"""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sga.files import sha256_of

BLOCK = 2**18
"""Bytes read at a time."""
TIMEOUT = 60
"""Seconds without data after which a download fails."""


def download_progress() -> Progress:
    """The display of downloads."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns)


def download(url: str, path: Path, sha256: str | None, progress: Progress) -> None:
    """Downloads a file; continues from the part that an interrupted attempt left beside ``path``.

    Args:
        url: Address of the file.
        path: Path of the file once it is whole and checked.
        sha256: Expected SHA-256 in hexadecimal digits, or the first of them; ``None`` where it is not known.
        progress: Progress display.

    Raises:
        OSError: The server refused, or the connection ended before the file did.
        ValueError: The checksum is wrong; what was downloaded is deleted.
    """
    part = path.with_name(f".{path.name}.part")
    if part.is_symlink():
        part.unlink()  # its name is known to others, who may have planted it
    try:
        _download_rest(url, part, path.name.lstrip("."), progress)
    except (OSError, HTTPException) as error:
        kept = f"; {part.stat().st_size} bytes are kept, run the command again to go on" if part.exists() else ""
        reason = error.reason if type(error) is URLError else error
        raise OSError(f"cannot download {url}: {reason}{kept}") from error
    if sha256 is not None and not (found := sha256_of(part)).startswith(sha256):
        part.unlink()
        raise ValueError(f"{url} has the SHA-256 {found} and not {sha256}: it was damaged on its way or has changed; it is deleted")
    part.replace(path)


def _download_rest(url: str, part: Path, title: str, progress: Progress) -> None:
    """Appends the missing bytes to ``part``, or writes it anew where the server does not send ranges."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "sga-lightning", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
            if response.status != 206:
                done = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                raise OSError("the server sent another range of bytes than was asked for")
            length = response.headers.get("Content-Length")
            total = None if length is None else done + int(length)
            task = progress.add_task(title, completed=done, total=total)
            with part.open("ab" if done else "wb") as file:
                while block := response.read(BLOCK):
                    file.write(block)
                    progress.update(task, advance=len(block))
                size = file.tell()
    except HTTPError as error:
        error.close()  # it holds the connection open
        if error.code == 416 and done:  # no bytes after the part: it is of another file, or is whole and was not checked yet
            part.unlink()
            _download_rest(url, part, title, progress)
            return
        raise
    if total is not None and size != total:
        raise OSError(f"the connection ended after {size} of {total} bytes")
