"""What a run finds around it: the variables of its process, and how many threads its numbers may take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def environment(**variables: int | None) -> Iterator[None]:
    """Sets variables of the environment while the body runs: a process that starts in it inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def one_thread() -> Iterator[None]:
    """While the body runs, a matrix product takes one thread, whether its library is loaded yet or not.

    On several it is summed up in another order: the last bits of a loss would tell the machines apart.
    """
    with environment(OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1), threadpool_limits(1):
        yield
