"""Who follows the tasks of a peer: plugins of the group `federated.listeners`, told whatever is reported.

    --tell NAME=PLACE ──→ load_listeners ──→ Listener, made with PLACE
    task ──report──→ open_listeners ──→ queue ──→ its thread: Listener.hear(peer, report)

They run on the operator's word alone: no task names them, and what they write travels nowhere. One that
fails, or is too slow, costs nobody else anything.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import trio

from federated.reports import Report
from p2p.errors import InvalidInput

GROUP = "federated.listeners"
QUEUE = 4096  # reports that wait for a listener: some rounds of the 128 peers of `atcp run`
CLOSE_GRACE = 5.0  # seconds for what still waits when the tasks are over

logger = logging.getLogger(__name__)

Told = tuple[str, Report]  # (peer, report)


class Listener(Protocol):
    """A class that an entry point names, made with the PLACE of --tell; it is called by one thread at a time.

    It says with an `OSError`, `ValueError` or `FederatedError` of one line that it cannot be made.
    """

    def hear(self, peer: str, report: Report) -> None:
        """Takes in what a task of `peer` reports, see `federated.reports`; the report must stay as it is."""

    def close(self) -> None:
        """Writes what is not written yet; nothing more will be reported."""


def load_listeners(
    texts: Sequence[str], installed: Iterable[EntryPoint] | None = None
) -> dict[str, Listener]:
    """The listeners that `texts`, each a NAME=PLACE, ask for. Raises `InvalidInput` with what to change.

    `installed` defaults to every entry point of the group.
    """
    points = list(entry_points(group=GROUP) if installed is None else installed) if texts else []
    known = {point.name: point for point in points}
    found = dict[str, Listener]()
    for text in texts:
        name, _, place = text.partition("=")
        if not place:
            raise InvalidInput(f"--tell {text}: write it like tensorboard=runs")
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise InvalidInput(f"--tell {text}: no listener {name!r} is installed; there are: {there}")
        try:
            found[text] = known[name].load()(place)
        except Exception as exc:  # a stranger's plugin may raise anything
            line = (str(exc).splitlines() or [""])[0] or type(exc).__name__
            raise InvalidInput(f"--tell {text}: {line}") from exc
    return found


@asynccontextmanager
async def open_listeners(listeners: Mapping[str, Listener]) -> AsyncIterator[Callable[[str, Report], None]]:
    """What to call with each peer and report while the body runs; listeners hear of it in their threads."""
    async with trio.open_nursery() as nursery:
        queues = dict[str, trio.MemorySendChannel[Told]]()
        scopes = [trio.CancelScope(shield=True) for _ in listeners]  # what was told is written in any case
        for scope, (name, listener) in zip(scopes, listeners.items(), strict=True):
            queues[name], waiting = trio.open_memory_channel[Told](QUEUE)
            nursery.start_soon(_serve, name, listener, waiting, scope)

        def tell(peer: str, report: Report) -> None:
            for name, queue in list(queues.items()):
                try:
                    queue.send_nowait((peer, report))
                except trio.BrokenResourceError:  # it failed, and said so
                    del queues[name]
                except trio.WouldBlock:
                    logger.warning("the listener %s is told no more: it is too slow", name)
                    queues.pop(name).close()

        try:
            yield tell
        finally:
            for queue in queues.values():
                queue.close()
            for scope in scopes:
                scope.deadline = trio.current_time() + CLOSE_GRACE


async def _serve(
    name: str, listener: Listener, waiting: trio.MemoryReceiveChannel[Told], scope: trio.CancelScope
) -> None:
    """Tells a listener what waits, many reports in one call of the thread, until there will be no more."""
    with scope, waiting:
        try:
            async for first in waiting:
                told = [first, *_rest(waiting)]
                await trio.to_thread.run_sync(partial(_tell, listener, told), abandon_on_cancel=True)
            await trio.to_thread.run_sync(listener.close, abandon_on_cancel=True)
        except Exception as exc:  # a stranger's plugin may raise anything
            logger.warning("the listener %s is told no more: it failed: %r", name, exc)


def _rest(waiting: trio.MemoryReceiveChannel[Told]) -> list[Told]:
    """What waits by now."""
    return [waiting.receive_nowait() for _ in range(waiting.statistics().current_buffer_used)]


def _tell(listener: Listener, told: Sequence[Told]) -> None:
    for peer, report in told:
        listener.hear(peer, report)
