"""A nursery for one owner: ends with its body, and fails with the one error that caused it.

trio wraps every failure in an ExceptionGroup; a caller of `open_host` should see the plain error.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Protocol

import trio


class open_scope:  # noqa: N801  called as trio.open_nursery is; a generator costs more than the nursery
    """A nursery that is cancelled when the body ends.

    A failure leaves as itself when it is alone (cancellations do not count), as a group otherwise.
    """

    __slots__ = ("_manager", "_nursery")

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is None:
            self._nursery.cancel_scope.cancel()
        failure: BaseException | None = None
        try:
            return await self._manager.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            failure = _simplify(group)
        try:
            raise failure  # out here, so that its own cause and context stay
        finally:
            del failure  # or it would refer to itself through its traceback


def _simplify(group: BaseExceptionGroup[BaseException]) -> BaseException:
    _, rest = group.split(trio.Cancelled)
    if rest is None:
        return group
    error: BaseException = rest
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def open_scope_until_signal() -> AsyncIterator[trio.Nursery]:
    """As `open_scope`, for a program: SIGINT and SIGTERM cancel it."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_scope() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            yield nursery


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


class Closable(Protocol):
    """Whatever has an `aclose`."""

    async def aclose(self) -> None:
        """Releases the resource."""


async def close_forcefully(resource: Closable) -> None:
    """Closes without waiting for the other side, even when the caller is being cancelled."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await resource.aclose()


class Resettable(Protocol):
    """Whatever has a `reset`."""

    def reset(self, code: int = 0) -> None:
        """Ends it at once."""


@contextmanager
def reset_on_error(stream: Resettable) -> Iterator[None]:
    """Resets `stream` when the body fails or is cancelled: the peer must not take a part for the whole."""
    try:
        yield
    except BaseException:
        stream.reset()
        raise
