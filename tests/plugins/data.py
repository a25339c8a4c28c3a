"""What the tests of data sources share: a folder with files in it, and a peer that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from federated.errors import DataError
from federated.plugin import Dataset, PeerContext
from plugins.preprocessing.source import Source
from plugins.preprocessing.sources.csv_file import Csv
from tests.federated.samples import peer


def context(folder: Path | None, number: int = 1) -> PeerContext:
    return PeerContext(peer=peer(number), members=(peer(number),), index=0, data_dir=folder)


def place(folder: Path, name: str) -> Path:
    """Where the file `name` of a peer's data lies; the folders above it are there."""
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = place(folder, name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load(source: Source, folder: Path | None, number: int = 1) -> Dataset:
    return source.load(context(folder, number))


def load_csv(folder: Path, text: str | bytes, **settings: Any) -> Dataset:
    """What the text of a table is to the source `csv`; nothing is held out."""
    write(folder, "table.csv", text)
    return load(Csv(path="table.csv", **{"holdout": 0.0, **settings}), folder)


@contextmanager
def read_or_refused() -> Iterator[None]:
    """The body reads data, or is refused them in one line."""
    try:
        yield
    except DataError as exc:
        assert "\n" not in str(exc)  # noqa: PT017


def refusal(source: Source, folder: Path | None) -> str:
    """The one line by which the data are refused, without the folder."""
    with pytest.raises(DataError) as caught:
        load(source, folder)
    line = str(caught.value)
    assert line
    assert "\n" not in line
    return line.replace(f"{folder}/", "")
