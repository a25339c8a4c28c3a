from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federated.errors import DataError
from federated.plugin import Dataset
from plugins.preprocessing.arrays import NpzArrays
from plugins.preprocessing.source import Source
from plugins.preprocessing.sources.csv_file import Csv
from plugins.preprocessing.sources.images import Images
from plugins.preprocessing.sources.stream import Stream
from tests.plugins.data import context, load, place, refusal, write
from tests.plugins.test_images import picture


def refresh(source: Source, folder: Path, dataset: Dataset) -> Dataset | None:
    return source.refresh(context(folder), dataset)


def test_lines_that_are_added_are_taken_up_once_they_are_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a,y\n1,0\n2,1\n")
    source = Csv(path="a.csv", label="y", holdout=0.0, follow=True)
    first = load(source, tmp_path)
    assert refresh(source, tmp_path, first) is None
    with path.open("a") as file:
        file.write("3,0\n4")  # somebody is still writing
    second = refresh(source, tmp_path, first)
    assert second is not None
    assert second.train[0].tolist() == [[1], [2], [3]]
    with path.open("a") as file:
        file.write("5,1\n")
    third = refresh(source, tmp_path, second)
    assert third is not None
    assert third.train[0].tolist() == [[1], [2], [3], [45]]
    assert refresh(source, tmp_path, third) is None


def test_data_that_cannot_be_read_again_are_refused_until_they_can(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a\n1\n")
    source = Csv(path="a.csv", holdout=0.0, follow=True)
    first = load(source, tmp_path)
    path.write_text("a\n1\nx\n")
    for _ in range(2):
        with pytest.raises(DataError, match="line 3: 'x' in column 'a' is no number"):
            refresh(source, tmp_path, first)
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        refresh(source, tmp_path, first)
    path.write_text("a\n1\n7\n")
    again = refresh(source, tmp_path, first)
    assert again is not None
    assert again.train[0].tolist() == [[1], [7]]


def test_who_does_not_follow_stays_with_the_first_data(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a\n1")
    source = Csv(path="a.csv", holdout=0.0)
    first = load(source, tmp_path)
    assert first.examples == 1  # and its last line needs no end
    path.write_text("a\n1\n2\n")
    assert refresh(source, tmp_path, first) is None


def test_transforms_are_fitted_to_what_there_is_now(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a\n1\n3\n")
    source = Csv(path="a.csv", holdout=0.0, follow=True, transforms=[{"name": "standardise"}])
    first = load(source, tmp_path)
    assert first.train[0].tolist() == [[-1], [1]]
    path.write_text("a\n1\n3\n5\n7\n")
    second = refresh(source, tmp_path, first)
    assert second is not None
    assert second.train[0].mean() == pytest.approx(0, abs=1e-7)


def test_new_files_of_a_folder_are_taken_up(tmp_path: Path) -> None:
    arrays = NpzArrays(path="parts", follow=True)
    np.savez(place(tmp_path, "parts/1.npz"), x=np.ones((2, 1)), y=np.array([0, 1]))
    few = load(arrays, tmp_path)
    np.savez(place(tmp_path, "parts/2.npz"), x=np.ones((3, 1)), y=np.array([0, 1, 0]))
    more = refresh(arrays, tmp_path, few)
    assert more is not None
    assert (few.examples, more.examples) == (2, 5)
    images = Images(path="birds", classes=["owl"], size=[2, 2], holdout=0.0, follow=True)
    write(tmp_path, "birds/owl/a.png", picture((0, 0, 0)))
    one = load(images, tmp_path)
    write(tmp_path, "birds/owl/b.png", picture((9, 0, 0)))
    two = refresh(images, tmp_path, one)
    assert two is not None
    assert (one.examples, two.examples) == (1, 2)


def test_a_stream_keeps_its_newest_lines_and_holds_out_the_last_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "s.csv", "load\n" + "".join(f"{n}\n" for n in range(12)))
    step = {"name": "window", "length": 2, "target": "load"}
    source = Stream(path="s.csv", keep=10, holdout=0.4, transforms=[step])
    first = load(source, tmp_path)
    x, y = first.train
    assert x[:, :, 0].tolist() == [[2, 3], [3, 4], [4, 5], [5, 6]]
    assert y.tolist() == [4, 5, 6, 7]
    assert first.holdout is not None
    assert first.holdout[1].tolist() == [10, 11]
    with path.open("a") as file:
        file.write("12\n")
    second = refresh(source, tmp_path, first)
    assert second is not None
    assert second.train[1].tolist() == [5, 6, 7, 8]


def test_a_stream_may_have_classes(tmp_path: Path) -> None:
    write(tmp_path, "s.csv", "load,state\n1,calm\n2,calm\n3,storm\n")
    step = {"name": "window", "length": 2}
    source = Stream(path="s.csv", label="state", classes=["storm", "calm"], holdout=0.0, transforms=[step])
    assert load(source, tmp_path).train[1].tolist() == [1, 0]
    write(tmp_path, "s.csv", "load,state\n1,calm\n")
    assert refusal(source, tmp_path) == "data/s.csv: 1 rows are fewer than the 2 that a window takes"
