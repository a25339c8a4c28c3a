"""Tables as Parquet files; needs pyarrow (the extra `parquet`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from federated.errors import DataError
from federated.parameters import Array
from plugins.preprocessing.files import check_size, one_line, reading
from plugins.preprocessing.sources.tabular import MAX_COLUMNS, Roles, TabularSource
from plugins.preprocessing.table import MAX_BYTES, Table, first_row, text_column


class Parquet(TabularSource):
    """The preprocessor: columns of numbers or truth values, and of text where the manifest says so."""

    def read_file(self, path: Path) -> Table:
        """As `FileSource.read_file`."""
        return read_parquet(path, self.roles)


def read_parquet(path: Path, roles: Roles) -> Table:
    """The table in a file; what it says of its size is checked before it is read. Raises `DataError`."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        raise DataError("Parquet files need the package 'pyarrow': pip install 'atcp[parquet]'") from exc
    check_size(path)
    try:
        with reading(path), pyarrow.parquet.ParquetFile(path) as file:
            names = _wanted(path, file, roles)
            found = file.read(columns=names)
            columns = {name: _column(path, name, found.column(name), roles) for name in names}
    except DataError:
        raise
    except Exception as exc:  # pyarrow raises many things over a damaged file
        raise DataError(f"{path} is not a Parquet file: {one_line(exc)}") from exc
    return roles.table(columns, str(path))


def _wanted(path: Path, file: Any, roles: Roles) -> list[str]:
    """The columns to read, once it is known that they fit into memory."""
    header, metadata = file.schema_arrow.names, file.metadata
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path}: more than {MAX_COLUMNS} columns")
    names = dict.fromkeys(roles.features(header, str(path)))
    if roles.answer is not None:
        names[roles.answer] = None
    groups = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    size = max(groups, 8 * metadata.num_rows * len(names))
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size} bytes of columns are over the limit of {MAX_BYTES}")
    return list(names)


def _column(path: Path, name: str, column: Any, roles: Roles) -> Array:
    import pyarrow

    kind = column.type
    if roles.is_text(name):
        return text_column(["" if value is None else str(value) for value in column.to_pylist()])
    if not (
        pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
    ):
        raise DataError(
            f"{path}: column {name!r} holds {kind}, no numbers; encode it, or leave it out of columns"
        )
    values = np.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64)
    row = first_row(np.isinf(values))
    if row is not None:
        raise DataError(f"{path}, row {row + 1}: the value of {name!r} is infinite")
    return values
