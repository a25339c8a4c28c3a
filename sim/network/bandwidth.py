"""Bandwidth: what is sent faster than a line carries it waits in a queue before that line.

    sender ─→ [uplink of the node] ─→ [link of the pair] ─→ latency ─→ [downlink of the node] ─→ receiver

Each line carries one message after the other, first come, first served, and passes a message on when its
last byte is through. A queue therefore is one number: when the line will be free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.scenario.model import NetworkSettings

MAX_BUSY_LINKS = 100_000  # remembered at least; those that are free again are forgotten first


class Bandwidth:
    """The lines of `nodes` nodes and of their pairs, with the speeds of `settings`; 0 is unlimited."""

    def __init__(self, settings: NetworkSettings, nodes: int) -> None:
        self._up = settings.up_mbit * 1e6 / 8  # bytes a second
        self._down = settings.down_mbit * 1e6 / 8
        self._link = settings.link_mbit * 1e6 / 8
        self._up_free = [0.0] * nodes  # when the node's uplink is free
        self._down_free = [0.0] * nodes
        self._link_free: dict[int, float] = {}  # by pair; forgotten when free
        self._links_at_most = MAX_BUSY_LINKS

    def leave(self, source: int, pair: int, size: int, now: float, mbit: float = 0.0) -> float:
        """When the last of `size` bytes, handed over now, is on its way; `mbit` is a lower limit of the link.

        Calls come in the order of `now`.
        """
        at = now
        if self._up:
            at = max(at, self._up_free[source]) + size / self._up
            self._up_free[source] = at
        rate = self._link
        if mbit and (not rate or mbit * 1e6 / 8 < rate):
            rate = mbit * 1e6 / 8
        if rate:
            at = max(at, self._link_free.get(pair, 0.0)) + size / rate
            self._link_free[pair] = at
            if len(self._link_free) > self._links_at_most:
                self._forget(now)
        return at

    def arrive(self, target: int, size: int, now: float) -> float:
        """When `size` bytes that came to the target's downlink now are through it."""
        if not self._down:
            return now
        self._down_free[target] = max(now, self._down_free[target]) + size / self._down
        return self._down_free[target]

    def _forget(self, now: float) -> None:
        """Drops the links that are free; rarely enough to cost next to nothing for each message."""
        self._link_free = {pair: free for pair, free in self._link_free.items() if free > now}
        self._links_at_most = max(MAX_BUSY_LINKS, 2 * len(self._link_free))
