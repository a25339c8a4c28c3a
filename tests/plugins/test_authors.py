from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from federated.errors import DataError, PluginError
from federated.manifest import PluginRef
from federated.plugin import Preprocessor
from federated.registry import GROUP, Registry
from plugins.preprocessing import authors
from plugins.preprocessing.authors import from_arrays, from_callable, from_torch
from tests.plugins.data import context

X = [[1.0, 2.0], [3.0, 4.0]]
Numbers = from_callable(lambda context: (X, [0, 1]))
Nothing = from_callable(lambda context: (X, None))


def test_arrays_become_a_data_set() -> None:
    data = from_arrays(X, [0, 1], context(None), holdout=0.0, transforms=[{"name": "standardise"}])
    x, y = data.train
    assert (x.dtype, y.dtype, data.examples) == (np.float32, np.int64, 2)
    assert x.tolist() == [[-1, -1], [1, 1]]
    assert from_arrays(X, [0.5, 1.5], context(None), holdout=0.0).train[1].dtype == np.float32
    many = from_arrays(np.zeros((50, 2)), None, context(None))
    assert many.train[1] is None
    assert many.holdout is not None
    assert 0 < len(many.holdout[0]) < 25


@pytest.mark.parametrize(
    ("x", "y", "line"),
    [
        (["a"], None, r"features of str32 and shape \(1,\) are no rows of numbers"),
        (1.0, None, r"features of float64 and shape \(\) are no rows of numbers"),
        (X, [[0], [1]], r"labels of int64 and shape \(2, 1\) are not one number for each example"),
        (X, ["a", "b"], r"labels of str32 and shape \(2,\) are not one number for each example"),
        (X, [1], "the data: the numbers of rows differ: 2 of x, 1 of labels"),
        (X, [0.5, np.nan], "the data, row 2: the target 'y' is missing"),
        ([[1.0], [np.nan]], None, "the data, row 2: a value of 'x' is missing"),
        ([], None, "the data: there are no examples in it"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(x: Any, y: Any, line: str) -> None:
    with pytest.raises(DataError, match=line):
        from_arrays(x, y, context(None), holdout=0.0)


def test_a_function_becomes_a_preprocessor_with_settings() -> None:
    registry = Registry(installed=[EntryPoint("numbers", f"{__name__}:Numbers", GROUP)])
    settings = {"holdout": 0.0, "transforms": [{"name": "normalise"}]}
    made = registry.create("preprocessor", PluginRef(name="numbers", settings=settings))
    assert isinstance(made, Preprocessor)
    assert made.load(context(None)).train[0].tolist() == [[0, 0], [1, 1]]
    assert Nothing(holdout=0.0).load(context(None)).train[1] is None
    with pytest.raises(
        PluginError, match=r"plugin 'numbers': setting transforms\[0\]: there is no transform"
    ):
        registry.create("preprocessor", PluginRef(name="numbers", settings={"transforms": [{}]}))


class Listed:
    """As much of a torch `Dataset` as a list is."""

    def __init__(self, *examples: Any) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Any:
        return self.examples[number]


def test_a_data_set_of_torch_is_read_whole() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra that is not installed here")
    whole = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(3, 2, 2), torch.tensor([2, 1, 0]))
    x, y = from_torch(whole, context(None), holdout=0.0, transforms=[{"name": "flatten"}]).train
    assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert y.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        (iter([]), "list_iterator does not know its length: it cannot be split"),
        (Listed(), "Listed has no examples"),
        (Listed((X, 0), 1), "example 2 is no pair of features and label"),
        (Listed((X, 0, 1)), "example 1 is no pair of features and label"),
        (Listed(("x", 0)), "example 1 is no pair of numbers and one label"),
        (Listed((X, [0])), "example 1 is no pair of numbers and one label"),
        (Listed((X, 0), ([1.0], 0)), r"example 2 has the shape \(1,\), those before it \(2, 2\)"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(dataset: Any, line: str) -> None:
    with pytest.raises(DataError, match=line):
        from_torch(dataset, context(None))


def test_a_data_set_that_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authors, "MAX_BYTES", 40)
    with pytest.raises(DataError, match="example 2: the examples are over the limit of 40 bytes"):
        from_torch(Listed((X, 0), (X, 0)), context(None))
