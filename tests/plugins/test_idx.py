from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.errors import DataError, PluginError
from plugins.preprocessing.sources import idx
from plugins.preprocessing.sources.idx import Idx, read_idx
from tests.plugins.data import load, read_or_refused, refusal, write

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array: Any, code: str = "u1") -> bytes:
    values = np.asarray(array).astype(f">{code}")
    return struct.pack(f">HBB{values.ndim}I", 0, CODES[code], values.ndim, *values.shape) + values.tobytes()


IMAGES = idx_bytes([[[0, 255], [51, 0]], [[1, 2], [3, 4]], [[0, 0], [0, 0]]])
LABELS = idx_bytes([7, 0, 9])


def both(folder: Path, images: bytes = IMAGES, labels: bytes = LABELS) -> Idx:
    write(folder, "images", images)
    write(folder, "labels", labels)
    return Idx(images="images", labels="labels", holdout=0.0)


def test_images_become_numbers_from_0_to_1_and_labels_classes(tmp_path: Path) -> None:
    x, y = load(both(tmp_path), tmp_path).train
    assert (x.shape, x.dtype, y.dtype) == ((3, 2, 2), np.float32, np.int64)
    assert x[0] == pytest.approx(np.array([[0, 1], [0.2, 0]]))
    assert y.tolist() == [7, 0, 9]


def test_packed_files_are_read_and_files_of_their_own_held_out(tmp_path: Path) -> None:
    write(tmp_path, "i.gz", gzip.compress(IMAGES))
    write(tmp_path, "l.gz", gzip.compress(LABELS))
    names = {"images": "i.gz", "labels": "l.gz", "holdout_images": "i.gz", "holdout_labels": "l.gz"}
    data = load(Idx(**names), tmp_path)
    assert data.examples == 3
    assert data.holdout is not None
    assert data.holdout[1].tolist() == [7, 0, 9]


@pytest.mark.parametrize("code", CODES)
def test_values_of_every_type_are_read(tmp_path: Path, code: str) -> None:
    array = read_idx(write(tmp_path, "a", idx_bytes([[1, 2], [3, 100]], code)))
    assert array.tolist() == [[1, 2], [3, 100]]
    assert array.dtype == np.dtype(code)


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (b"", LABELS, "data/images is not an IDX file: it begins with nothing"),
        (b"\x89PNG", LABELS, "data/images is not an IDX file: it begins with 89504e47"),
        (b"\0\0\x0a\1" + IMAGES[4:], LABELS, "data/images is not an IDX file: it begins with 00000a01"),
        (b"\0\0\x08\0", LABELS, "data/images is not an IDX file: it begins with 00000800"),
        (IMAGES[:10], LABELS, "data/images is cut short in its header"),
        (IMAGES[:-1], LABELS, "data/images: its header promises 12 bytes, there are fewer"),
        (IMAGES + b"\0", LABELS, "data/images: its header promises 12 bytes, there are more"),
        (
            b"\0\0\x08\2\xff\xff\xff\xff\xff\xff\xff\xff",
            LABELS,
            "data/images: its header promises 18446744065119617025 bytes, more than there can be",
        ),
        (IMAGES, idx_bytes([[7], [0], [9]]), "data/labels: 2 dimensions of uint8 are no list of labels"),
        (IMAGES, idx_bytes([7, 0, 9], "f4"), "data/labels: 1 dimensions of float32 are no list of labels"),
        (IMAGES, idx_bytes([7, 0]), "data/images has 3 examples and data/labels has 2"),
        (idx_bytes(np.zeros((0, 2))), idx_bytes([]), "data/images: there are no examples in it"),
        (
            idx_bytes([[1], [np.nan], [2]], "f4"),
            LABELS,
            "data/images, image 2: a value of 'image' is missing: impute it, or leave the column out",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, images: bytes, labels: bytes, line: str) -> None:
    assert refusal(both(tmp_path, images, labels), tmp_path) == line


def test_a_packed_file_is_not_unpacked_beyond_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = write(tmp_path, "bomb.gz", gzip.compress(idx_bytes([1, 2]) + bytes(10_000_000)))
    with pytest.raises(DataError, match="its header promises 2 bytes, there are more"):
        read_idx(bomb)
    liar = write(tmp_path, "liar.gz", gzip.compress(b"\0\0\x08\1\xff\xff\xff\xff"))
    with pytest.raises(DataError, match="promises 4294967295 bytes, more than there can be"):
        read_idx(liar)
    monkeypatch.setattr(idx, "MAX_BYTES", 1)
    with pytest.raises(DataError, match="promises 3 bytes, more than there can be"):
        read_idx(write(tmp_path, "labels", LABELS))


def test_held_out_files_go_together() -> None:
    with pytest.raises(
        PluginError, match="holdout_images and holdout_labels go together, as images and labels"
    ):
        Idx(images="i", labels="l", holdout_images="x")
    with pytest.raises(PluginError, match="go together"):
        Idx(images="i", labels="l", holdout_labels="x")


@given(st.lists(st.integers(0, 255), max_size=20), st.sampled_from(sorted(CODES)))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_read(tmp_path: Path, values: list[int], code: str) -> None:
    values = [value % 128 for value in values]
    assert read_idx(write(tmp_path, "a", idx_bytes(values, code))).tolist() == values


@given(st.binary(max_size=40), st.integers(0, 40), st.booleans())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, at: int, packed: bool) -> None:
    whole = gzip.compress(IMAGES, mtime=0) if packed else IMAGES
    damaged = whole[:at] + data + whole[at + len(data) :]
    path = write(tmp_path, "a.gz" if packed else "a", damaged)
    with read_or_refused():
        assert read_idx(path).size < 10_000
