from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.errors import DataError, PluginError
from plugins.preprocessing import files
from plugins.preprocessing.sources import csv_file
from plugins.preprocessing.sources.csv_file import Csv
from tests.plugins.data import load, load_csv, read_or_refused, refusal, write

TABLE = "a,b,kind\n1,2.5,0\n-3,4e2,1\n"
ENCODED = [{"name": "encode", "categories": {"a": ["x", "y"]}}]


def test_numbers_become_features_and_the_label_a_class(tmp_path: Path) -> None:
    data = load_csv(tmp_path, TABLE, label="kind")
    x, y = data.train
    assert x.dtype == np.float32
    assert x.tolist() == [[1, 2.5], [-3, 400]]
    assert y.dtype == np.int64
    assert y.tolist() == [0, 1]
    assert (data.examples, data.holdout) == (2, None)


def test_columns_come_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    x, _ = load_csv(tmp_path, TABLE, label="kind", columns=["b", "a"]).train
    assert x.tolist() == [[2.5, 1], [400, -3]]


def test_names_of_classes_are_numbered_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    text = "a,kind\n1,wren\n2, owl \n"
    assert load_csv(tmp_path, text, label="kind", classes=["owl", "wren"]).train[1].tolist() == [1, 0]


def test_a_target_is_a_number_of_any_kind(tmp_path: Path) -> None:
    x, y = load_csv(tmp_path, "a,price\n1,9.5\n2,-1\n", target="price").train
    assert x.tolist() == [[1], [2]]
    assert y.dtype == np.float32
    assert y.tolist() == [9.5, -1]


def test_without_a_label_there_are_features_only(tmp_path: Path) -> None:
    x, y = load_csv(tmp_path, "a,b\n1,2\n").train
    assert x.tolist() == [[1, 2]]
    assert y is None


def test_other_delimiters_quotes_byte_order_marks_and_empty_lines_are_read(tmp_path: Path) -> None:
    text = '\ufeffa;"b;c"\r\n1;"2"\r\n\r\n3;4'
    assert load_csv(tmp_path, text, delimiter=";").train[0].tolist() == [[1, 2], [3, 4]]


def test_a_share_is_held_out_and_stays_so_when_lines_are_added(tmp_path: Path) -> None:
    lines = [f"{number}" for number in range(100)]
    few = load_csv(tmp_path, "a\n" + "\n".join(lines[:60]), holdout=0.25)
    many = load_csv(tmp_path, "a\n" + "\n".join(lines), holdout=0.25)
    assert few.holdout is not None
    assert many.holdout is not None
    assert 5 < len(few.holdout[0]) < 25
    assert many.holdout[0][: len(few.holdout[0])].tolist() == few.holdout[0].tolist()
    assert sorted(np.concatenate([many.train[0], many.holdout[0]]).ravel()) == list(range(100))


def test_a_file_of_its_own_is_held_out_whole(tmp_path: Path) -> None:
    write(tmp_path, "held.csv", "a,b,kind\n7,8,1\n")
    data = load_csv(tmp_path, TABLE, label="kind", holdout_path="held.csv", holdout=0.5)
    assert data.examples == 2
    assert data.holdout is not None
    assert data.holdout[0].tolist() == [[7, 8]]


@pytest.mark.parametrize(
    ("text", "settings", "line"),
    [
        ("", {}, "data/table.csv, line 1: there are no names of columns, or more than 65536"),
        ("a,b\n", {}, "data/table.csv: there are no examples in it"),
        ("a,a\n1,2\n", {}, "data/table.csv: two columns are called 'a'"),
        ("a,b\n1,2\n1\n", {}, "data/table.csv, line 3: 1 fields instead of 2"),
        ("a,b\n1,2,3\n", {}, "data/table.csv, line 2: 3 fields instead of 2"),
        (
            "a,b\n1,2\n3,x\n",
            {},
            "data/table.csv, line 3: 'x' in column 'b' is no number; encode the column, or leave it out of "
            "columns",
        ),
        (
            "a\n1_000\n",
            {},
            "data/table.csv, line 2: '1_000' in column 'a' is no number; encode the column, or leave it out "
            "of columns",
        ),
        (
            "a\n1\nNA\n",
            {},
            "data/table.csv, line 3: a value of 'a' is missing: impute it, or leave the column out",
        ),
        ("a\n1\n-inf\n", {}, "data/table.csv, line 3: the value of 'a' is infinite"),
        (
            "a\n1\n1e200\n",
            {},
            "data/table.csv, line 3: a value of 'a' is beyond float32: standardise it",
        ),
        ("a,b\n1,2\n", {"label": "y"}, "data/table.csv: there is no column 'y'; there are: a, b"),
        ("a,b\n1,2\n", {"columns": ["c"]}, "data/table.csv: there is no column 'c'; there are: a, b"),
        ("a\n1\n", {"label": "a"}, "data/table.csv: there is no column beside 'a'"),
        ("a,y\n1,1\n2,\n", {"label": "y"}, "data/table.csv, line 3: the label 'y' is missing"),
        ("a,y\n1,nan\n", {"target": "y"}, "data/table.csv, line 2: the target 'y' is missing"),
        ("a,y\n1,1e99\n", {"target": "y"}, "data/table.csv, line 2: the target 'y' is beyond float32"),
        (
            "a,y\n1,0.5\n",
            {"label": "y"},
            "data/table.csv, line 2: the label 'y' is 0.5, no whole number; for regression name it as target",
        ),
        (
            "a,y\n1,cat\n",
            {"label": "y", "classes": ["dog", "cow"]},
            "data/table.csv, line 2: the label y 'cat' is none of the categories; there are: dog, cow",
        ),
        (
            "a,y\n1,?\n",
            {"label": "y", "classes": ["dog"]},
            "data/table.csv, line 2: 'the label y' is missing; there are: dog",
        ),
        ('a\n"1\n', {}, "data/table.csv, line 2: unexpected end of data"),
        (b"a\n1\n\xff\n", {}, "data/table.csv, line 3: not UTF-8: invalid start byte"),
        (
            "a,b\nx,1\nz,1\n",
            {"transforms": ENCODED},
            "data/table.csv, line 3: a 'z' is none of the categories; there are: x, y",
        ),
        (
            'a,b\n"x\nx",1\n',
            {"transforms": ENCODED},
            r"data/table.csv, line 3: a 'x\nx' is none of the categories; there are: x, y",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, text: str | bytes, settings: dict[str, Any], line: str
) -> None:
    write(tmp_path, "table.csv", text)
    assert refusal(Csv(path="table.csv", holdout=0.0, **settings), tmp_path) == line


def test_a_file_that_is_not_there_or_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Csv(path="table.csv")
    assert refusal(source, tmp_path) == "cannot read data/table.csv: No such file or directory"
    write(tmp_path, "table.csv", TABLE)
    monkeypatch.setattr(csv_file, "MAX_LINE", 8)
    assert refusal(source, tmp_path) == "data/table.csv, line 1: over 8 bytes"
    monkeypatch.setattr(csv_file, "MAX_FILE", 10)
    assert refusal(source, tmp_path) == "data/table.csv: 26 bytes are over the limit of 10"


@pytest.mark.parametrize("name", ["/etc/passwd", "../identity", "a/../../identity", "a\\b", "a\0b"])
def test_a_manifest_cannot_name_what_is_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    assert (
        refusal(Csv(path=name), tmp_path) == f"{name!r} is no path below the folder 'data' of the data folder"
    )


def test_a_peer_without_a_folder_is_told_to_give_one() -> None:
    assert (
        refusal(Csv(path="a.csv"), None) == "a.csv is looked for in the data folder: give one with --data-dir"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "setting path: Missing required keyword only argument"),
        ({"path": ""}, "setting path: String should have at least 1 character"),
        ({"path": "a", "delimiter": ",,"}, "setting delimiter: String should have at most 1 character"),
        ({"path": "a", "delimiter": '"'}, "setting delimiter: String should match pattern"),
        ({"path": "a", "holdout": 1.0}, "setting holdout: Input should be less than 1"),
        ({"path": "a", "colums": []}, "setting colums: Unexpected keyword argument"),
        (
            {"path": "a", "label": "y", "target": "z"},
            "label is a class and target a number: give one of them",
        ),
        ({"path": "a", "classes": ["z"]}, "classes are the values of a label: give label too"),
        ({"path": "a", "label": "y", "classes": ["z", "z"]}, "setting classes: a class is given twice"),
        (
            {"path": "a", "label": "a", "transforms": ENCODED},
            "'a' is the label, which no transform changes: use classes",
        ),
        (
            {"path": "a", "transforms": [{"name": "x"}]},
            r"setting transforms\[0\]: there is no transform 'x'; there",
        ),
        (
            {"path": "a", "transforms": [{}]},
            r"setting transforms\[0\]: there is no transform None; there are: impute",
        ),
        (
            {"path": "a", "transforms": [{"name": "flatten", "x": 1}]},
            r"setting transforms\[0\], flatten: setting x: Unexpected keyword argument",
        ),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(PluginError, match=line):
        Csv(**settings)


NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 9)), min_size=1, max_size=8))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_read(tmp_path: Path, rows: list[tuple[float, float, int]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b, c", 'the "kind"'), *rows])
    x, y = load_csv(tmp_path, text.getvalue(), label='the "kind"').train
    assert x.tolist() == [[a, b] for a, b, _ in rows]
    assert y.tolist() == [kind for _, _, kind in rows]


@given(st.binary(max_size=60) | st.text('abkind,0123.e-"\n\r;?', max_size=60).map(str.encode))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, "table.csv", b"a,kind\n1,0\n" + data)
    with read_or_refused():
        x, y = load(Csv(path="table.csv", label="kind", holdout=0.0), tmp_path).train
        assert len(x) == len(y) > 0
        assert np.isfinite(x).all()


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 1)
    for name in ("a.png", "b.png"):
        write(tmp_path, f"birds/{name}", b"")
    with pytest.raises(DataError, match="more than 1 files"):
        files.files_below(tmp_path / "data" / "birds", (".png",))
