"""Which nodes should run: several causes may keep a node down, and it comes back when the last is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.rung import Rung


class Presence:
    """Starts and stops the nodes of a rung.

    `on_start` is called after each start, `on_loss` after each crash that cost the disk; in order of entry.
    """

    def __init__(self, rung: Rung, peers: int) -> None:
        self._rung = rung
        self._came = [False] * peers
        self._causes = [0] * peers  # that keep the node down
        self.on_start: list[Callable[[int], None]] = []
        self.on_loss: list[Callable[[int], None]] = []

    def up(self, node: int) -> bool:
        """Whether the node's process runs."""
        return self._came[node] and self._causes[node] == 0 and self._rung.alive(node)

    def come(self, node: int) -> None:
        """The node joins the network for the first time, or as soon as nothing keeps it down."""
        self._came[node] = True
        self._start(node)

    def take_down(self, node: int, *, keep_disk: bool, silently: bool = False) -> None:
        """One more cause keeps the node down; the first one crashes it."""
        self._causes[node] += 1
        if self._came[node] and self._causes[node] == 1:
            self._rung.crash(node, keep_disk=keep_disk, silently=silently)
            for call in [] if keep_disk else self.on_loss:
                call(node)

    def bring_back(self, node: int) -> None:
        """One cause less keeps the node down; when none is left it starts."""
        self._causes[node] -= 1
        self._start(node)

    def _start(self, node: int) -> None:
        if self._came[node] and self._causes[node] == 0:
            self._rung.start(node)
            for call in self.on_start:
                call(node)
