"""What a run finds around it."""

from __future__ import annotations

import os

import numpy  # noqa: F401  (brings a library with threads)
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sim.environment import environment, one_thread


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def test_numbers_take_one_thread_and_then_as_many_as_before() -> None:
    with threadpool_limits(2):
        with one_thread():
            assert threads() == {1}
            assert os.environ["OPENBLAS_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"] == "1"
        assert threads() == {2}


def test_variables_are_as_before_when_the_body_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAD", "old")
    monkeypatch.delenv("HAD_NOT", raising=False)
    with pytest.raises(KeyError), environment(HAD=1, HAD_NOT=2, LEFT=None):
        assert (os.environ["HAD"], os.environ["HAD_NOT"]) == ("1", "2")
        raise KeyError
    assert os.environ["HAD"] == "old"
    assert not {"HAD_NOT", "LEFT"} & set(os.environ)
