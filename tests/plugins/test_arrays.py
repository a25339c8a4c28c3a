from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.errors import DataError, PluginError
from federated.plugin import Dataset, PeerContext
from plugins.preprocessing import arrays
from plugins.preprocessing.arrays import NpyArrays, NpzArrays
from tests.federated.samples import peer
from tests.plugins import data

GOOD: dict[str, Any] = {"x": np.ones((3, 2)), "y": np.array([0, 1, 2], np.uint8)}


def load(folder: Path | None) -> Dataset:
    return NpzArrays().load(PeerContext(peer=peer(1), members=(peer(1),), index=0, data_dir=folder))


def written(folder: Path, **values: Any) -> Path:
    np.savez(folder / "train.npz", **values)
    return folder


def test_arrays_are_read_into_the_types_that_trainers_take(tmp_path: Path) -> None:
    found = load(written(tmp_path, **GOOD))
    x, y = found.train
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert y.tolist() == [0, 1, 2]
    assert found.examples == 3
    assert found.holdout is None


def test_held_out_arrays_are_read_when_there_are_any(tmp_path: Path) -> None:
    found = load(written(tmp_path, **GOOD, holdout_x=np.zeros((1, 2)), holdout_y=np.array([1])))
    assert found.holdout is not None
    assert found.holdout[1].tolist() == [1]


def test_compressed_file_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "train.npz", **GOOD)
    assert load(tmp_path).examples == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "there is no array 'x'"),
        ({"y": None}, "there is no array 'y'"),
        ({"holdout_x": np.ones((1, 2))}, "there is no array 'holdout_y'"),
        ({"x": np.array(["a", "b", "c"])}, "array 'x' holds str32, which does not fit"),
        ({"y": np.array([0.0, 1.0, 2.0])}, "array 'y' holds float64, which does not fit"),
        ({"y": np.array([0, 1])}, r"x \(3, 2\) and y \(2,\) are not one label for each example"),
        ({"y": np.array([[0], [1], [2]])}, "are not one label for each example"),
        ({"x": np.ones((0, 2)), "y": np.zeros(0, int)}, "are not one label for each example"),
        ({"x": np.float64(1)}, "are not one label for each example"),
        ({"x": np.full((3, 2), np.nan)}, "train.npz, row 1: a value of 'x' is missing: impute it, or leave"),
        ({"x": np.full((3, 2), np.inf)}, "train.npz, row 1: a value of 'x' is infinite"),
        ({"x": np.full((3, 2), 1e300)}, "train.npz, row 1: a value of 'x' is beyond float32: standardise it"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    values = {name: value for name, value in (GOOD | changes).items() if value is not None}
    with pytest.raises(DataError, match=message) as caught:
        load(written(tmp_path, **values))
    assert "train.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_missing_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give one with --data-dir"):
        load(None)
    with pytest.raises(DataError, match=r"cannot read .*train\.npz: No such file"):
        load(tmp_path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"array 'x': it holds Python objects, which are not loaded: save it as numbers"
    ):
        load(written(tmp_path, x=np.array([{"a": 1}], object), y=np.array([0])))


def test_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(20_000))
    with pytest.raises(DataError, match="20000 bytes of arrays are over the limit of 10000"):
        load(tmp_path)


def npy_bytes(array: Any, promise: tuple[int, ...] | None = None) -> bytes:
    """A `.npy` file whose header promises another shape than it holds."""
    file = io.BytesIO()
    array = np.asarray(array)
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": promise or array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def test_array_that_promises_more_than_there_is_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("x.npy", npy_bytes(np.zeros(3), (1 << 40,)))
    with pytest.raises(DataError, match=r"array 'x': its header promises 8796093022208 bytes, there are 24"):
        load(tmp_path)


def test_all_files_of_a_folder_are_one_data_set(tmp_path: Path) -> None:
    for number in (1, 2):
        held = {"holdout_x": np.zeros((1, 2)), "holdout_y": np.array([number])}
        np.savez(data.place(tmp_path, f"parts/{number}.npz"), **GOOD, **held)
    found = data.load(NpzArrays(path="parts"), tmp_path)
    assert found.examples == 6
    assert found.holdout is not None
    assert found.holdout[1].tolist() == [1, 2]


def test_files_of_a_folder_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    source = NpzArrays(path="parts")
    data.place(tmp_path, "parts/1.npz")
    assert data.refusal(source, tmp_path) == "data/parts: there are no .npz files in it"
    np.savez(data.place(tmp_path, "parts/1.npz"), **GOOD)
    np.savez(data.place(tmp_path, "parts/2.npz"), x=np.ones((1, 3)), y=np.array([0]))
    line = "data/parts/2.npz: x has rows of (3,), those of data/parts/1.npz (2,)"
    assert data.refusal(source, tmp_path) == line


def test_npy_files_are_features_and_labels(tmp_path: Path) -> None:
    np.save(data.place(tmp_path, "x.npy"), np.ones((3, 2), np.uint8))
    np.save(data.place(tmp_path, "y.npy"), np.array([2, 1, 0]))
    x, y = data.load(NpyArrays(x="x.npy", y="y.npy", holdout=0.0), tmp_path).train
    assert x.dtype == np.float32
    assert y.tolist() == [2, 1, 0]
    both = data.load(NpyArrays(x="x.npy", holdout_x="x.npy"), tmp_path)
    assert both.train[1] is None
    assert both.holdout is not None
    assert both.holdout[0].shape == (3, 2)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "data/x.npy: EOF: reading magic string, expected 8 bytes got 0"),
        (b"PK\x03\x04 and so on", "data/x.npy: the magic string is not correct; expected"),
        (b"\x93NUMPY\x09\x00\x10\x00", "data/x.npy: a version of the format that is not read here"),
        (npy_bytes([1.0])[:-1], "data/x.npy: its header promises 8 bytes, there are 7"),
        (npy_bytes([1.0]) + b"1", "data/x.npy: its header promises 8 bytes, there are 9"),
        (
            npy_bytes([1.0], (1 << 60,)),
            "data/x.npy: its header promises 9223372036854775808 bytes, there are 8",
        ),
        (npy_bytes([1.0], (-1, -1)), "data/x.npy: its header promises 8 bytes, there are 8"),
        (npy_bytes(["a"]), "data/x.npy: array 'x' holds str32, which does not fit"),
        (npy_bytes(1.0), "data/x.npy: x () and y None are not one label for each example"),
    ],
)
def test_npy_file_that_cannot_be_is_refused(tmp_path: Path, content: bytes, line: str) -> None:
    data.write(tmp_path, "x.npy", content)
    assert data.refusal(NpyArrays(x="x.npy"), tmp_path).startswith(line)


def test_held_out_npy_files_go_together() -> None:
    with pytest.raises(PluginError, match="holdout_x and holdout_y go together, as x and y do"):
        NpyArrays(x="x", y="y", holdout_x="x")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_damaged_npy_file_is_refused_or_read(tmp_path: Path, at: int, flip: int, cut: bool) -> None:
    content = bytearray(npy_bytes(np.ones((3, 2))))
    at %= len(content)
    content[at] ^= flip
    data.write(tmp_path, "x.npy", bytes(content[:at] if cut else content))
    with data.read_or_refused():
        assert data.load(NpyArrays(x="x.npy"), tmp_path).examples > 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_damaged_file_is_refused_or_read(tmp_path: Path, at: int, flip: int, cut: bool) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **GOOD)
    content = bytearray(buffer.getvalue())
    at %= len(content)
    content[at] ^= flip
    (tmp_path / "train.npz").write_bytes(content[:at] if cut else content)
    with data.read_or_refused():
        assert load(tmp_path).examples > 0
