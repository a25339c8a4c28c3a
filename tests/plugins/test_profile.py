from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plugins.preprocessing import profile
from tests.plugins.data import load_csv

STEPS = [
    {"name": "impute", "columns": ["a", "b"], "strategy": "constant", "value": 0},
    {"name": "impute", "columns": ["c"], "strategy": "constant", "value": "x"},
    {"name": "encode", "categories": {"c": ["x"]}},
]


def test_a_profile_tells_what_was_read_before_it_was_changed(tmp_path: Path) -> None:
    text = "a,b,c,y\n1,,x,0\n-4,,,1\nNA,,x,1\n2,,x,1\n"
    told = load_csv(tmp_path, text, label="y", transforms=STEPS).profile
    assert told == {
        "examples": 4,
        "held_out": 0,
        "classes": {"0": 1, "1": 3},
        "missing": {"a": 0.25, "b": 1.0, "c": 0.25},
        "ranges": {"a": [-4.0, 2.0]},
    }
    json.dumps(told)


def test_a_profile_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "MAX_COLUMNS", 1)
    monkeypatch.setattr(profile, "MAX_CLASSES", 1)
    told = load_csv(tmp_path, "a,b,y\n1,2,0\n3,4,1\n", label="y").profile
    assert told["ranges"] == {"a": [1.0, 3.0]}
    assert "classes" not in told


def test_targets_have_no_classes_and_images_no_range(tmp_path: Path) -> None:
    assert "classes" not in load_csv(tmp_path, "a,y\n1,2\n", target="y").profile
    from plugins.preprocessing.authors import from_arrays
    from tests.plugins.data import context

    told = from_arrays(np.ones((3, 2, 2)), None, context(None), holdout=0.0).profile
    assert told == {"examples": 3, "held_out": 0, "missing": {}, "ranges": {}}
