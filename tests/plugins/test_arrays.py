from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.errors import DataError
from federated.plugin import Dataset, PeerContext
from plugins.preprocessing import arrays
from plugins.preprocessing.arrays import NpzArrays
from tests.federated.samples import peer

GOOD: dict[str, Any] = {"x": np.ones((3, 2)), "y": np.array([0, 1, 2], np.uint8)}


def load(folder: Path | None) -> Dataset:
    return NpzArrays().load(PeerContext(peer=peer(1), members=(peer(1),), index=0, data_dir=folder))


def written(folder: Path, **values: Any) -> Path:
    np.savez(folder / "train.npz", **values)
    return folder


def test_arrays_are_read_into_the_types_that_trainers_take(tmp_path: Path) -> None:
    data = load(written(tmp_path, **GOOD))
    x, y = data.train
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert y.tolist() == [0, 1, 2]
    assert data.examples == 3
    assert data.holdout is None


def test_held_out_arrays_are_read_when_there_are_any(tmp_path: Path) -> None:
    data = load(written(tmp_path, **GOOD, holdout_x=np.zeros((1, 2)), holdout_y=np.array([1])))
    assert data.holdout is not None
    assert data.holdout[1].tolist() == [1]


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
        ({"x": np.full((3, 2), np.nan)}, "array 'x' holds values that are not finite"),
        ({"x": np.full((3, 2), 1e300)}, "array 'x' holds values that are not finite"),
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
    with pytest.raises(DataError, match=r"Object arrays cannot be loaded when allow_pickle=False"):
        load(written(tmp_path, x=np.array([{"a": 1}], object), y=np.array([0])))


def test_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(20_000))
    with pytest.raises(DataError, match="20000 bytes of arrays are over the limit of 10000"):
        load(tmp_path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_damaged_file_is_refused_or_read(tmp_path: Path, at: int, flip: int, cut: bool) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **GOOD)
    data = bytearray(buffer.getvalue())
    at %= len(data)
    data[at] ^= flip
    (tmp_path / "train.npz").write_bytes(data[:at] if cut else data)
    with suppress(DataError):
        assert load(tmp_path).examples > 0
