from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from federated.errors import PluginError
from plugins.preprocessing.sources import images
from plugins.preprocessing.sources.images import Images
from tests.plugins.data import load, read_or_refused, refusal, write

BIRDS = ["owl", "wren"]


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (6, 4), kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def source(grey: bool = False, holdout: float = 0.0) -> Images:
    return Images(path="birds", classes=BIRDS, size=[2, 3], grey=grey, holdout=holdout)


def test_a_folder_is_a_class_and_every_image_is_brought_to_one_size(tmp_path: Path) -> None:
    write(tmp_path, "birds/wren/a.png", picture((255, 0, 51)))
    write(tmp_path, "birds/owl/deep/b.JPG", picture((0, 0, 0), (50, 70), "JPEG"))
    write(tmp_path, "birds/owl/notes.txt", "not an image")
    write(tmp_path, "birds/owl/.hidden.png", "not an image")
    x, y = load(source(), tmp_path).train
    assert x.shape == (2, 2, 3, 3)
    assert x.dtype == np.float32
    assert y.tolist() == [0, 1]
    assert x[1, 0, 0] == pytest.approx([1, 0, 0.2])
    assert load(source(grey=True), tmp_path).train[0].shape == (2, 2, 3)


def test_who_is_held_out_depends_on_the_name_alone(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"birds/owl/{number:02}.png", picture((number, 0, 0)))
    before = load(source(holdout=0.3), tmp_path)
    write(tmp_path, "birds/owl/00a.png", picture((100, 0, 0)))
    after = load(source(holdout=0.3), tmp_path)
    assert before.holdout is not None
    assert after.holdout is not None

    def shades(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> set[int]:
        return {round(255 * value) for value in x[:, 0, 0, 0].tolist()}

    assert shades(before.holdout[0]) == shades(after.holdout[0]) - {100}
    assert 0 < len(before.holdout[0]) < 12


def test_a_folder_that_is_no_class_and_an_image_in_none_are_refused(tmp_path: Path) -> None:
    assert refusal(source(), tmp_path) == "data/birds is no folder"
    write(tmp_path, "birds/readme.txt", "")
    assert refusal(source(), tmp_path) == "data/birds: there are no examples in it"
    write(tmp_path, "birds/emu/a.png", picture((0, 0, 0)))
    assert refusal(source(), tmp_path) == "data/birds: 'emu' is none of the classes; there are: owl, wren"
    write(tmp_path, "birds/a.png", picture((0, 0, 0)))
    assert refusal(source(), tmp_path) == "data/birds: 'a.png' is in no class; there are: owl, wren"


def test_what_is_no_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "birds/owl/a.png", b"not an image")
    kinds = "PNG, JPEG, BMP, PPM, GIF, WEBP"
    assert refusal(source(), tmp_path) == f"data/birds/owl/a.png is no image of the kinds {kinds}"
    write(tmp_path, "birds/owl/a.png", picture((0, 0, 0), kind="TIFF"))
    assert refusal(source(), tmp_path) == f"data/birds/owl/a.png is no image of the kinds {kinds}"
    write(tmp_path, "birds/owl/a.png", picture((1, 2, 3), (60, 60))[:-40])
    assert refusal(source(), tmp_path) == "cannot read data/birds/owl/a.png: image file is truncated"
    huge = bytearray(picture((1, 2, 3), kind="BMP"))
    huge[21] = 255  # of the width
    write(tmp_path, "birds/owl/a.png", bytes(huge))
    assert refusal(source(), tmp_path).startswith("data/birds/owl/a.png is a damaged image: Image size (")
    write(tmp_path, "birds/owl/a.png", picture((1, 2, 3), (60, 60)))
    monkeypatch.setattr(images, "MAX_PIXELS", 3599)
    line = "data/birds/owl/a.png: 60 x 60 pixels are over the limit of 3599"
    assert refusal(source(), tmp_path) == line
    monkeypatch.setattr(images, "MAX_BYTES", 71)
    assert refusal(source(), tmp_path) == "data/birds: 1 images take 72 bytes, over the limit of 71"


def test_without_pillow_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    line = "image folders need the package 'Pillow': pip install 'atcp[images]'"
    assert refusal(source(), tmp_path) == line


@pytest.mark.parametrize(
    ("classes", "size", "line"),
    [
        (["a", "a"], [1, 1], "setting classes: a class is given twice"),
        ([], [1, 1], "setting classes"),
        (["a"], [1], "setting size"),
        (["a"], [1, 0], r"setting size\[1\]"),
    ],
)
def test_a_wrong_setting_is_named(classes: list[str], size: list[int], line: str) -> None:
    with pytest.raises(PluginError, match=line):
        Images(path="a", classes=classes, size=size)


@given(st.binary(min_size=1, max_size=30), st.integers(0, 80))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_image_is_read_or_refused(tmp_path: Path, data: bytes, at: int) -> None:
    whole = picture((9, 9, 9))
    write(tmp_path, "birds/owl/a.png", whole[:at] + data + whole[at + len(data) :])
    with read_or_refused():
        assert load(source(), tmp_path).examples == 1
