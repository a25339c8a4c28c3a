"""When a node of a fixed topology dials a peer again that it has lost or could not reach.

In such a topology nobody runs discovery, which would see to it; every rung goes by this instead.
"""

from __future__ import annotations

FIRST = 1.0  # seconds; as p2p.discovery's first back-off
LONGEST = 30.0  # seconds


class Redial:
    """The back-off towards one peer: it doubles with each attempt and starts anew with a connection."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = FIRST

    def connected(self) -> None:
        """There is a connection: the next wait is the shortest again."""
        self._next = FIRST

    def wait(self) -> float:
        """Seconds to wait before the next attempt, now that one failed or the connection is gone."""
        seconds, self._next = self._next, min(2 * self._next, LONGEST)
        return seconds
