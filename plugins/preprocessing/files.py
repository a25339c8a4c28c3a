"""Where the files of a source are: in the folder `data` of a peer's data folder, and nowhere else.

A manifest comes from the network and names files. It must not be able to name the identity of the peer,
which is a file in the data folder, nor anything outside of it: that would be trained into a model that
others get.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from federated.errors import DataError
from federated.plugin import PeerContext
from plugins.preprocessing.table import MAX_BYTES

FOLDER = "data"  # in a peer's data folder
MAX_FILES = 1 << 20  # files of one folder

Fingerprint = tuple[tuple[str, int, int], ...]  # of each file: name, bytes, when it was changed


def data_path(context: PeerContext, name: str) -> Path:
    """The path of the file or folder `name`. Raises `DataError` when it would be outside of the folder."""
    if context.data_dir is None:
        raise DataError(f"{name} is looked for in the data folder: give one with --data-dir")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or "\\" in name:
        raise DataError(f"{name!r} is no path below the folder {FOLDER!r} of the data folder")
    return context.data_dir / FOLDER / parts


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the system says about a file into a `DataError` that names it."""
    try:
        yield
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or one_line(exc)}") from exc


def one_line(exc: Exception) -> str:
    """What a library says of a file, cut to its first line; its type when it says nothing."""
    return (str(exc).splitlines() or [""])[0] or type(exc).__name__


def check_size(path: Path, limit: int = MAX_BYTES) -> int:
    """The size of a file in bytes. Raises `DataError` when it cannot be read or is over `limit`."""
    with reading(path):
        size = path.stat().st_size
    if size > limit:
        raise DataError(f"{path}: {size} bytes are over the limit of {limit}")
    return size


def files_below(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files in a folder and in those below it, sorted, without those whose name begins with a dot."""
    with reading(path):
        if not path.is_dir():
            raise DataError(f"{path} is no folder")
        found = []
        for file in path.rglob("*"):
            if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file():
                found.append(file)
            if len(found) > MAX_FILES:
                raise DataError(f"{path}: more than {MAX_FILES} files")
    return sorted(found)


def fingerprint(paths: list[Path]) -> Fingerprint:
    """What changes when one of the files, or one in one of the folders, does; empty for what is not there."""
    found = []
    for path in paths:
        with reading(path):
            files = sorted(path.rglob("*"))[:MAX_FILES] if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    status = file.stat()
                    found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(found)
