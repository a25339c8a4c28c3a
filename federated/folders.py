"""New folders for reports, none of which is ever written to twice."""

from __future__ import annotations

from pathlib import Path

MAX_ATTEMPTS = 1000  # folders of one name


def make_numbered(parent: Path, name: str) -> Path:
    """A new folder `name` below `parent`, numbered when there is one.

    Raises `FileExistsError` when there are `MAX_ATTEMPTS`, and `OSError` when it cannot be made.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        folder = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent} has {MAX_ATTEMPTS} folders called {name}")
