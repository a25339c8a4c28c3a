from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.preprocessing.sources import parquet
from plugins.preprocessing.sources.parquet import Parquet
from tests.plugins.data import load, place, read_or_refused, refusal, write

pyarrow = pytest.importorskip("pyarrow", reason="Parquet files are an extra that is not installed here")

FRAME: dict[str, list[Any]] = {"a": [1, 2], "b": [0.5, 1.5], "kind": ["owl", "wren"]}
KIND = {"label": "kind", "classes": ["wren", "owl"]}


def table(folder: Path, frame: dict[str, list[Any]]) -> Path:
    import pyarrow.parquet

    path = place(folder, "table.parquet")
    pyarrow.parquet.write_table(pyarrow.table(frame), path)
    return path


def source(**changes: Any) -> Parquet:
    return Parquet(**{"path": "table.parquet", "holdout": 0.0, **changes})


def test_columns_become_features_and_labels(tmp_path: Path) -> None:
    table(tmp_path, {**FRAME, "c": [True, False]})
    x, y = load(source(**KIND), tmp_path).train
    assert x.tolist() == [[1, 0.5, 1], [2, 1.5, 0]]
    assert y.tolist() == [1, 0]


def test_values_that_are_null_are_missing(tmp_path: Path) -> None:
    table(tmp_path, {"a": [1, None], "c": [None, "x"]})
    line = "data/table.parquet, row 2: a value of 'a' is missing: impute it, or leave the column out"
    assert refusal(source(columns=["a"]), tmp_path) == line
    steps = [
        {"name": "impute"},
        {"name": "impute", "columns": ["c"], "strategy": "constant", "value": "y"},
        {"name": "encode", "categories": {"c": ["x", "y"]}, "ordinal": True},
    ]
    assert load(source(transforms=steps), tmp_path).train[0].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("frame", "changes", "line"),
    [
        (
            FRAME,
            {},
            "data/table.parquet: column 'kind' holds string, no numbers; encode it, or leave it out",
        ),
        ({"a": [[1]]}, {}, "data/table.parquet: column 'a' holds list<element: int64>, no numbers"),
        (FRAME, {"label": "y"}, "data/table.parquet: there is no column 'y'; there are: a, b, kind"),
        ({"a": [1.0], "kind": [None]}, {"target": "kind"}, "data/table.parquet: column 'kind' holds null"),
        (
            {"a": [1.0], "y": [0.5]},
            {"label": "y"},
            "data/table.parquet, row 1: the label 'y'",
        ),
        ({"a": [1.0, float("inf")]}, {}, "data/table.parquet, row 2: the value of 'a' is infinite"),
        ({"a": []}, {}, "data/table.parquet: column 'a' holds null, no numbers"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, frame: dict[str, list[Any]], changes: dict[str, Any], line: str
) -> None:
    table(tmp_path, frame)
    assert refusal(source(**changes), tmp_path).startswith(line)


def test_a_file_that_is_none_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(source(), tmp_path) == "cannot read data/table.parquet: No such file or directory"
    write(tmp_path, "table.parquet", b"a,b\n1,2\n")
    assert refusal(source(), tmp_path).startswith("data/table.parquet is not a Parquet file: ")
    table(tmp_path, FRAME)
    monkeypatch.setattr(parquet, "MAX_COLUMNS", 2)
    assert refusal(source(), tmp_path) == "data/table.parquet: more than 2 columns"
    table(tmp_path, {"a": [7.0] * 1000})  # takes a few hundred bytes in the file
    monkeypatch.setattr(parquet, "MAX_BYTES", 7999)
    line = "data/table.parquet: 8000 bytes of columns are over the limit of 7999"
    assert refusal(source(), tmp_path) == line


def test_without_pyarrow_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    line = "Parquet files need the package 'pyarrow': pip install 'atcp[parquet]'"
    assert refusal(source(), tmp_path) == line


@given(st.binary(min_size=1, max_size=8), st.integers(0, 2000))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: bytes, at: int) -> None:
    whole = table(tmp_path, FRAME).read_bytes()
    at %= len(whole)
    write(tmp_path, "table.parquet", whole[:at] + data + whole[at + len(data) :])
    with read_or_refused():
        load(source(columns=["a", "b"]), tmp_path)
