from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated import codec
from federated.errors import DataError, PluginError
from plugins.preprocessing import table
from plugins.preprocessing.pipeline import Transforms
from plugins.preprocessing.table import Table, features, joined, make_table, split, text_column
from plugins.preprocessing.transforms import augment, tokens, window
from plugins.preprocessing.transforms.tokens import token_id
from tests.plugins.data import context, write

NAN = float("nan")
COLUMNS: dict[str, Any] = {"a": [1.0, 2.0, 3.0], "b": [10.0, NAN, 30.0], "c": ["x", "", "y"]}


def made(columns: dict[str, Any] = COLUMNS, labels: Any = None, **details: Any) -> Table:
    found = {
        name: text_column(values) if isinstance(values[0], str) else np.asarray(values)
        for name, values in columns.items()
    }
    return make_table(found, None if labels is None else np.asarray(labels), "data", **details)


def run(
    train: Table,
    *steps: dict[str, Any],
    holdout: Table | None = None,
    folder: Path | None = None,
    peer: int = 1,
) -> tuple[Table, Table | None]:
    return Transforms(list(steps)).run(train, holdout, context(folder, peer))


def refused(train: Table, *steps: dict[str, Any], folder: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        features(run(train, *steps, folder=folder)[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wrong(**step: Any) -> str:
    with pytest.raises(PluginError) as caught:
        Transforms([step])
    return str(caught.value)


# Tables


def test_columns_that_are_missing_or_of_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="data: the numbers of rows differ: 2 of a, 1 of labels"):
        made({"a": [1.0, 2.0]}, [1])
    assert refused(made(), {"name": "impute", "columns": ["z"]}) == (
        "data: there is no column 'z'; there are: a, b, c"
    )
    line = "data, row 2: a value of 'b' is missing: impute it, or leave the column out"
    assert refused(made()) == line


def test_text_and_no_columns_at_all_are_no_features() -> None:
    assert refused(made({"c": ["x"]})) == (
        "data: column 'c' is text: encode it, make tokens of it, or do not list it"
    )
    with pytest.raises(DataError, match="data: no column is left to train on"):
        features(replace(made(), columns={}))


def test_columns_of_any_shape_are_put_side_by_side_and_one_alone_keeps_its_own() -> None:
    both = made({"a": [1.0, 2.0], "b": [[[3.0, 4.0]], [[5.0, 6.0]]]})
    assert features(both).tolist() == [[1, 3, 4], [2, 5, 6]]
    assert features(made({"b": [[[3.0, 4.0]], [[5.0, 6.0]]]})).shape == (2, 1, 2)


def test_long_lists_of_names_are_cut() -> None:
    assert table.listing([str(number) for number in range(9)]) == "there are: 0, 1, 2, 3, 4, 5, 6, 7, …"
    assert table.listing([]) == "there is none"


def test_everything_held_out_leaves_nothing_to_train_on() -> None:
    whole = made({"a": [1.0]}, draws=np.zeros(1))
    with pytest.raises(DataError, match="data: all of the 1 examples are held out; have more of them"):
        split(whole, 0.5)
    train, holdout = split(whole, 0.0)
    assert len(train) == 1
    assert holdout is None


def test_the_newest_part_of_what_is_in_order_is_held_out() -> None:
    train, holdout = split(made({"a": [float(n) for n in range(10)]}, ordered=True), 0.25)
    assert holdout is not None
    assert train.columns["a"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert holdout.columns["a"].tolist() == [8, 9]


def test_tables_are_joined_with_their_labels_or_without() -> None:
    one = made({"a": [1.0]}, [5])
    assert joined([one, one]).labels is not None
    assert joined([made({"a": [1.0]})] * 2).labels is None
    assert joined([one, one]).columns["a"].tolist() == [1, 1]


# Standardise, normalise


def test_standardised_features_have_mean_0_and_deviation_1_where_they_were_fitted() -> None:
    train, holdout = run(made({"a": [1.0, 3.0], "b": [5.0, 5.0]}), {"name": "standardise"}, holdout=made())
    assert train.columns["a"].tolist() == [-1, 1]
    assert train.columns["b"].tolist() == [0, 0]  # one value only: there is no deviation
    assert holdout is not None
    assert holdout.columns["a"].tolist() == [-1, 0, 1]
    assert holdout.columns["b"][0] == 5.0
    assert train.columns["a"].dtype == np.float64


def test_missing_values_stay_missing_and_do_not_count() -> None:
    train, _ = run(made(), {"name": "standardise", "columns": ["b"]})
    assert train.columns["b"][[0, 2]].tolist() == [-1, 1]
    assert np.isnan(train.columns["b"][1])
    train, _ = run(made(), {"name": "normalise", "columns": ["b"]})
    assert train.columns["b"][[0, 2]].tolist() == [0, 1]
    nothing, _ = run(made({"b": [NAN, NAN]}), {"name": "normalise"})
    assert np.isnan(nothing.columns["b"]).all()


def test_statistics_of_the_manifest_are_for_the_features_side_by_side() -> None:
    columns = {"a": [[1.0, 2.0]], "b": [3.0]}
    train, _ = run(made(columns), {"name": "standardise", "mean": [0, 1, 1], "std": [1, 2, 4]})
    assert train.columns["a"].tolist() == [[1, 0.5]]
    assert train.columns["b"].tolist() == [0.5]
    line = "data: statistics of 1 features do not fit 3 of them"
    assert refused(made(columns), {"name": "standardise", "mean": [0], "std": [1]}) == line


def test_normalised_features_go_from_0_to_1_or_as_the_manifest_says() -> None:
    train, holdout = run(made({"a": [2.0, 6.0, 4.0]}), {"name": "normalise"}, holdout=made({"a": [8.0]}))
    assert train.columns["a"].tolist() == [0, 1, 0.5]
    assert holdout is not None
    assert holdout.columns["a"].tolist() == [1.5]
    train, _ = run(made({"a": [0, 255]}), {"name": "normalise", "low": 0, "high": 255})
    assert train.columns["a"].tolist() == [0, 1]


def test_text_has_no_scale() -> None:
    line = "data: column 'c' is text, which has no scale: encode it first"
    assert refused(made(), {"name": "normalise", "columns": ["c"]}) == line
    assert refused(made({"c": ["x"]}), {"name": "standardise"}) == "data: there is no column of numbers"


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ({"name": "standardise", "mean": [1.0]}, "mean and std go together"),
        ({"name": "standardise", "mean": [1.0], "std": []}, "mean has 1 numbers and std 0"),
        (
            {"name": "standardise", "mean": [1.0], "std": [0.0]},
            "setting std[0]: Input should be greater than 0",
        ),
        (
            {"name": "standardise", "file": "x"},
            "file and digest go together: all peers need the same statistics",
        ),
        (
            {"name": "standardise", "mean": [], "std": [], "file": "x", "digest": "0" * 64},
            "give either mean and std, or file and digest",
        ),
        ({"name": "standardise", "file": "x", "digest": "0"}, "setting digest: String should match pattern"),
        ({"name": "normalise", "low": 1.0}, "low and high go together"),
        ({"name": "normalise", "low": 1.0, "high": 1.0}, "low is 1.0 and high 1.0: there is nothing between"),
        ({"name": "impute", "strategy": "constant"}, "value goes with the strategy constant"),
        ({"name": "impute", "value": 1.0}, "value goes with the strategy constant"),
        ({"name": "impute", "strategy": "constant", "value": "x"}, "a value that is text needs columns"),
        ({"name": "encode", "categories": {}}, "setting categories"),
        ({"name": "encode", "categories": {"c": ["x", "x"]}}, "categories.c: a value is given twice"),
        ({"name": "tokens", "column": "c", "vocabulary": 1}, "setting vocabulary"),
        ({"name": "window", "length": 0}, "setting length"),
        ({"name": "augment", "copies": 65}, "setting copies"),
    ],
)
def test_a_wrong_setting_is_named(step: dict[str, Any], line: str) -> None:
    assert line in wrong(**step)


def moments_file(folder: Path, data: bytes | None = None, **tensors: Any) -> dict[str, Any]:
    """The step that standardises by a file with these tensors."""
    values = {"mean": [1.0, 2.0], "variance": [4.0, 0.0], **tensors}
    encoded = codec.encode({name: np.array(value, np.float64) for name, value in values.items()})
    write(folder, "moments.safetensors", encoded if data is None else data)
    digest = hashlib.sha256(encoded).hexdigest()
    return {"name": "standardise", "file": "moments.safetensors", "digest": digest}


def test_certified_statistics_are_read_from_a_file(tmp_path: Path) -> None:
    train, _ = run(made({"a": [3.0], "b": [3.0]}), moments_file(tmp_path), folder=tmp_path)
    assert (train.columns["a"].tolist(), train.columns["b"].tolist()) == ([1], [1])


def test_statistics_that_are_not_those_of_the_task_are_refused(tmp_path: Path) -> None:
    two = made({"a": [3.0], "b": [3.0]})
    path = tmp_path / "data" / "moments.safetensors"
    step = moments_file(tmp_path, b"other")
    line = refused(two, step, folder=tmp_path)
    digests = f"d9298a10d1b07358…, not {step['digest'][:16]}…"
    assert line == f"{path} has the digest {digests}: it is not what the task names"
    line = refused(made({"a": [3.0]}), moments_file(tmp_path), folder=tmp_path)
    assert line.startswith(f"{path} does not have mean and variance of 1 features: size: ")
    line = refused(two, moments_file(tmp_path, other=[1.0]), folder=tmp_path)
    assert line.startswith(f"{path} does not have mean and variance of 2 features: ")
    line = refused(two, moments_file(tmp_path, mean=[1.0, NAN]), folder=tmp_path)
    assert line == f"{path}: not all of the statistics are finite"
    path.unlink()
    assert refused(two, step, folder=tmp_path) == f"cannot read {path}: No such file or directory"


@given(arrays(np.float64, (5, 3), elements=st.floats(-1e6, 1e6)))
def test_scaled_features_stay_within_their_bounds(values: np.ndarray[Any, Any]) -> None:
    standard = run(made({"x": values}), {"name": "standardise"})[0].columns["x"]
    assert np.abs(standard).max() <= 2.0 + 1e-6  # of 5 values none is further than 2 deviations away
    normal = run(made({"x": values}), {"name": "normalise"})[0].columns["x"]
    assert normal.min() == 0
    assert set(normal.max(axis=0)) <= {0.0, 1.0}


# Impute


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ({}, 20),
        ({"strategy": "median"}, 10),
        ({"strategy": "constant", "value": -1.0}, -1),
    ],
)
def test_missing_numbers_are_filled(step: dict[str, Any], value: float) -> None:
    whole = made({"a": [1.0] * 4, "b": [10.0, NAN, 40.0, 10.0]})
    train, holdout = run(whole, {"name": "impute", **step}, holdout=made({"a": [NAN], "b": [NAN]}))
    assert train.columns["b"].tolist() == [10, value, 40, 10]
    assert holdout is not None
    assert holdout.columns["b"].tolist() == [value]


def test_missing_text_is_filled_where_it_is_asked_for() -> None:
    step = {"name": "impute", "columns": ["c"], "strategy": "constant", "value": "z"}
    assert run(made(), step)[0].columns["c"].tolist() == ["x", "z", "y"]
    assert Transforms([step]).text == {"c"}
    assert (
        refused(made(), {**step, "columns": ["a"]})
        == "data: column 'a' holds numbers, which this cannot fill"
    )
    line = "data: column 'c' holds text, which this cannot fill"
    assert refused(made(), {"name": "impute", "columns": ["c"]}) == line


def test_a_column_without_any_value_has_no_mean() -> None:
    line = "data: column 'b' has no mean: no value of it is known here"
    assert refused(made({"b": [NAN, NAN]}), {"name": "impute"}) == line


# Encode


def test_values_become_features_in_the_order_of_the_manifest() -> None:
    whole = made({"c": ["x", "y"], "a": [7.0, 8.0]})
    step = {"name": "encode", "categories": {"c": ["y", "z", "x"]}}
    assert features(run(whole, step)[0]).tolist() == [[0, 0, 1, 7], [1, 0, 0, 8]]
    assert features(run(whole, {**step, "ordinal": True})[0]).tolist() == [[2, 7], [0, 8]]


def test_values_that_are_missing_or_unknown_are_refused() -> None:
    step = {"name": "encode", "categories": {"c": ["x"]}}
    assert refused(made(), step) == "data, row 2: 'c' is missing; there are: x"
    assert refused(made({"c": ["w"]}), step) == "data, row 1: c 'w' is none of the categories; there are: x"


# Tokens


def test_the_same_words_have_the_same_ids_everywhere() -> None:
    step = {"name": "tokens", "column": "c", "vocabulary": 1000, "length": 4}
    train, _ = run(made({"c": ["An owl, an owl!", ""]}), step)
    ids = train.columns["c"]
    assert ids.dtype == np.int64
    assert ids.shape == (2, 4)
    assert ids[0, 0] == ids[0, 3] == token_id("an", 1000) == 949
    assert ids[1].tolist() == [0, 0, 0, 0]
    assert features(train).dtype == np.int64


@pytest.mark.parametrize(
    ("split_at", "expected"),
    [("words", ["a", "-", "b", "c_1"]), ("spaces", ["a-b", "c_1"]), ("characters", list("a-b\nc_1"))],
)
def test_text_is_cut_in_three_ways(split_at: str, expected: list[str]) -> None:
    train, _ = run(
        made({"c": ["A-b\nC_1"]}),
        {"name": "tokens", "column": "c", "length": len(expected), "split": split_at},
    )
    assert train.columns["c"].tolist() == [[token_id(token, 4096) for token in expected]]


def test_tokens_are_counted_however_long_the_text_is() -> None:
    step = {"name": "tokens", "column": "c", "vocabulary": 50, "counts": True}
    counts = features(run(made({"c": ["owl " * 100 + "wren", ""]}), step)[0])
    assert counts.dtype == np.float32
    assert counts.sum(axis=1).tolist() == [101, 0]
    assert counts[0, token_id("owl", 50)] >= 100


def test_tokens_need_text_and_space(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"name": "tokens", "column": "a"}
    assert refused(made(), step) == "data: column 'a' is no text to make tokens of"
    monkeypatch.setattr(tokens, "MAX_BYTES", 1535)
    line = "data: the tokens take 1536 bytes, over the limit of 1535"
    assert refused(made(), {"name": "tokens", "column": "c"}) == line


@given(st.text(), st.integers(2, 1 << 20), st.sampled_from(["words", "spaces", "characters"]))
def test_any_text_becomes_ids_of_the_vocabulary(text: str, vocabulary: int, split_at: str) -> None:
    step = {"name": "tokens", "column": "c", "vocabulary": vocabulary, "length": 8, "split": split_at}
    ids = run(made({"c": ["", text]}), step)[0].columns["c"]
    assert ids.min() >= 0
    assert ids.max() < vocabulary


# Windows


def test_windows_and_what_comes_after_them() -> None:
    series = made({"a": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "b": [9.0] * 6}, ordered=True)
    step = {"name": "window", "length": 2, "stride": 2, "horizon": 2, "target": "a"}
    train, holdout = run(series, step, holdout=series.take(np.arange(2)))
    assert train.columns["window"].tolist() == [[[0, 9], [1, 9]], [[2, 9], [3, 9]]]
    assert train.labels is not None
    assert train.labels.dtype == np.float32
    assert train.labels.tolist() == [3, 5]
    assert holdout is None  # it is shorter than a window and what comes after
    assert features(train).shape == (2, 2, 2)


def test_without_a_target_a_window_has_the_label_of_its_last_row() -> None:
    series = made({"a": [0.0, 1.0, 2.0]}, [7, 8, 9], ordered=True)
    train, _ = run(series, {"name": "window", "length": 2})
    assert train.labels is not None
    assert train.labels.tolist() == [8, 9]
    assert train.at(0) == "data, row 2"


def test_rows_that_make_no_windows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"name": "window", "length": 3}
    assert refused(made({"a": [1.0]}), step) == (
        "data: windows need rows that follow in time: use the source 'stream'"
    )
    short = made({"a": [1.0, 2.0]}, ordered=True)
    assert refused(short, step) == "data: 2 rows are fewer than the 3 that a window takes"
    assert refused(short, {"name": "window", "length": 2, "target": "a"}) == (
        "data: 2 rows are fewer than the 3 that a window takes"
    )
    gap = made({"a": [1.0, 2.0, NAN, 4.0]}, ordered=True)
    assert refused(gap, {"name": "window", "length": 1, "target": "a"}) == (
        "data, row 3: the target 'a' is missing"
    )
    text = made({"a": [1.0], "c": ["x"]}, ordered=True)
    assert refused(text, {"name": "window", "length": 1}) == "data: windows take columns of numbers only"
    wide = made({"a": [[1.0], [2.0]]}, ordered=True)
    assert refused(wide, {"name": "window", "length": 1, "target": "a"}) == (
        "data: the target 'a' is no single number for each example"
    )
    monkeypatch.setattr(window, "MAX_BYTES", 7)
    assert refused(short, {"name": "window", "length": 1}) == (
        "data: the windows take 8 bytes, over the limit of 7"
    )


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_every_window_is_a_stretch_of_the_series(count: int, length: int, stride: int, horizon: int) -> None:
    series = made({"a": [float(n) for n in range(count)]}, ordered=True)
    step = {"name": "window", "length": length, "stride": stride, "horizon": horizon, "target": "a"}
    expected = [
        (list(range(start, start + length)), start + length - 1 + horizon)
        for start in range(0, count, stride)
        if start + length - 1 + horizon < count
    ]
    if not expected:
        assert "fewer than" in refused(series, step)
        return
    train, _ = run(series, step)
    assert train.labels is not None
    found = train.columns["window"][:, :, 0].tolist()
    assert list(zip(found, train.labels.tolist(), strict=True)) == expected


# Augment, flatten


IMAGES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_copies_are_added_for_training_only_and_are_the_same_again() -> None:
    images = made({"image": IMAGES}, [5, 6])
    step = {"name": "augment", "copies": 2, "flip": True, "shift": 1, "noise": 0.1}
    train, holdout = run(images, step, holdout=images)
    assert holdout is images
    assert train.columns["image"].shape == (6, 3, 4)
    assert train.columns["image"].dtype == np.float32
    assert train.labels is not None
    assert train.labels.tolist() == [5, 6, 5, 6, 5, 6]
    assert train.columns["image"][:2].tolist() == IMAGES.tolist()
    again, _ = run(images, step)
    assert again.columns["image"].tobytes() == train.columns["image"].tobytes()
    other, _ = run(images, step, peer=2)
    assert other.columns["image"].tobytes() != train.columns["image"].tobytes()


def test_images_are_mirrored_and_moved_as_a_whole() -> None:
    colours = made({"image": np.stack([IMAGES + 1] * 3, axis=-1)})
    mirrored, _ = run(colours, {"name": "augment", "copies": 20, "flip": True})
    image = colours.columns["image"]
    kinds = {bytes(copy) for copy in mirrored.columns["image"][::2]}
    assert kinds == {bytes(image[0].tobytes()), np.ascontiguousarray(image[0, :, ::-1]).tobytes()}
    moved, _ = run(colours, {"name": "augment", "copies": 40, "shift": 1})
    for copy in moved.columns["image"][::2]:
        assert any(
            np.array_equal(copy, np.roll(_emptied(image[0], down, right), (down, right), (0, 1)))
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
    gone, _ = run(colours, {"name": "augment", "copies": 64, "shift": 1000})
    assert (gone.columns["image"].reshape(65 * 2, -1) == 0).all(axis=1).any()


def _emptied(image: np.ndarray[Any, Any], down: int, right: int) -> np.ndarray[Any, Any]:
    """Without the rows and columns that leave the picture when it is moved."""
    kept = image.copy()
    if down:
        kept[-1 if down > 0 else 0] = 0
    if right:
        kept[:, -1 if right > 0 else 0] = 0
    return kept


def test_what_is_no_image_is_not_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "data: augment takes one column of images, before they are flattened"
    assert refused(made({"a": [1.0]}), {"name": "augment"}) == line
    assert refused(made({"a": IMAGES}), {"name": "flatten"}, {"name": "augment"}) == line
    monkeypatch.setattr(augment, "MAX_BYTES", 191)
    line = "data: 1 copies of each image are over 191 bytes"
    assert refused(made({"a": IMAGES}), {"name": "augment"}) == line


def test_flattened_examples_are_rows() -> None:
    train, _ = run(made({"image": IMAGES, "c": ["x", "y"]}), {"name": "flatten"})
    assert train.columns["image"].shape == (2, 12)
    assert train.columns["c"].tolist() == ["x", "y"]
