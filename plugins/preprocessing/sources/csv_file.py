"""Tables as text: a line with the names of the columns, then a line for each example.

Whether a column holds numbers or text is not guessed (peers would guess differently): it holds text when a
transform of text or `classes` names it, and numbers otherwise. An empty field, `NA`, `NaN`, `null`, `none`
and `?` are missing values. The format is RFC 4180's, in UTF-8.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Protocol

import numpy as np
from pydantic import Field

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.files import check_size, reading
from plugins.preprocessing.source import HOLDOUT, Name, Share, Steps
from plugins.preprocessing.sources.tabular import MAX_COLUMNS, ColumnNames, Roles, TabularSource
from plugins.preprocessing.table import Table, first_row, text_column
from plugins.preprocessing.transforms.encode import Categories

MAX_FILE = 1 << 30  # bytes; a digit and a comma become 8 bytes
MAX_LINE = 1 << 24  # bytes
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  # in any case, spaces around them aside


class _Reader(Protocol):
    """What `csv.reader` returns; its type has no public name."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


Delimiter = Annotated[str, Field(min_length=1, max_length=1, pattern=r"^[^\"\r\n]$")]


class Csv(TabularSource):
    """The preprocessor; with `follow`, lines that are appended enter the next round once they are whole."""

    @checked_settings
    def __init__(
        self,
        *,
        path: Name,
        label: str | None = None,
        target: str | None = None,
        classes: Categories | None = None,
        columns: ColumnNames | None = None,
        delimiter: Delimiter = ",",
        holdout: Share = HOLDOUT,
        holdout_path: Name | None = None,
        follow: bool = False,
        transforms: Steps = (),
    ) -> None:
        super().__init__(
            path=path,
            label=label,
            target=target,
            classes=classes,
            columns=columns,
            holdout_path=holdout_path,
            transforms=transforms,
            holdout=holdout,
            follow=follow,
        )
        self.delimiter = delimiter

    def read_file(self, path: Path) -> Table:
        """As `FileSource.read_file`."""
        return read_csv(path, self.roles, self.delimiter, whole_lines=self.follow)


def read_csv(path: Path, roles: Roles, delimiter: str, *, whole_lines: bool, ordered: bool = False) -> Table:
    """The table in a file. With `whole_lines` a last line without its end is left for later.

    Raises `DataError`.
    """
    check_size(path, MAX_FILE)
    with reading(path), path.open("rb") as file:
        reader = csv.reader(_lines(path, file, whole_lines), delimiter=delimiter, strict=True)
        try:
            columns, lines = _columns(path, reader, roles)
        except csv.Error as exc:
            raise DataError(f"{path}, line {reader.line_num}: {exc}") from exc
    table = roles.table(columns, str(path), origin=lines, unit="line", ordered=ordered)
    for name, column in columns.items():
        row = None if roles.is_text(name) else first_row(np.isinf(column))
        if row is not None:
            raise DataError(f"{table.at(row)}: the value of {name!r} is infinite")
    return table


def _columns(path: Path, reader: _Reader, roles: Roles) -> tuple[dict[str, Array], Array]:
    """The columns that are wanted, and the line that each row ends on."""
    header = [name.strip() for name in next(reader, [])]
    if not any(header) or len(header) > MAX_COLUMNS:
        raise DataError(f"{path}, line 1: there are no names of columns, or more than {MAX_COLUMNS}")
    names = dict.fromkeys(roles.features(header, str(path)))
    if roles.answer is not None:
        names[roles.answer] = None
    numbers = {name: array("d") for name in names if not roles.is_text(name)}
    texts: dict[str, list[str]] = {name: [] for name in names if roles.is_text(name)}
    places = {name: place for place, name in enumerate(header)}
    into_numbers = [(places[name], name, values.append) for name, values in numbers.items()]
    into_texts = [(places[name], texts[name].append) for name in texts]
    lines = array("q")
    for row in reader:
        if not row:
            continue  # an empty line
        if len(row) != len(header):
            raise DataError(f"{path}, line {reader.line_num}: {len(row)} fields instead of {len(header)}")
        for place, name, append in into_numbers:
            value = _number(row[place])
            if value is None:
                raise DataError(
                    f"{path}, line {reader.line_num}: {row[place]!r:.40} in column {name!r} is no number; "
                    "encode the column, or leave it out of columns"
                )
            append(value)
        for place, append_text in into_texts:
            field = row[place].strip()
            append_text("" if field.lower() in MISSING else field)
        lines.append(reader.line_num)
    found: dict[str, Array] = {
        name: text_column(texts[name]) if name in texts else np.array(numbers[name]) for name in names
    }
    return found, np.array(lines, np.int64)


def _number(field: str) -> float | None:
    """The number in a field, NaN when it is missing, None when it is none."""
    try:
        if "_" not in field:  # Python reads 1_000 as a number, nobody else does
            return float(field)
    except ValueError:
        pass
    return float("nan") if field.strip().lower() in MISSING else None


def _lines(path: Path, file: BinaryIO, whole: bool) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(f"{path}, line {number}: over {MAX_LINE} bytes")
        if whole and not line.endswith(b"\n"):
            return
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            raise DataError(f"{path}, line {number}: not UTF-8: {exc.reason}") from exc
