"""Who runs, who is subscribed to what, and since when, without interruption."""

from __future__ import annotations

from array import array
from math import inf

import numpy as np
from numpy.typing import NDArray


class Presence:
    """The nodes as they are now. Times are virtual seconds; infinity stands for "not now"."""

    def __init__(self, peers: int) -> None:
        self._peers = peers
        self._since = array("d", (inf,)) * peers
        self._joined: dict[str, array[float]] = {}
        self.times = array("d")  # of each start and crash, ascending
        self.nodes = array("H")
        self.ups = array("B")  # 1 for a start, 0 for a crash
        self.restarts = 0
        self._ran = bytearray(peers)

    def start(self, node: int, now: float) -> None:
        """The node's process runs from now on."""
        self.restarts += self._ran[node]
        self._ran[node] = 1
        self._since[node] = now
        self._log(node, now, 1)

    def crash(self, node: int, now: float) -> None:
        """The node's process is gone, and its subscriptions with it."""
        self._since[node] = inf
        for joined in self._joined.values():
            joined[node] = inf
        self._log(node, now, 0)

    def join(self, node: int, topic: str, now: float) -> None:
        """The node is subscribed from now on."""
        if topic not in self._joined:
            self._joined[topic] = array("d", (inf,)) * self._peers
        self._joined[topic][node] = now

    def leave(self, node: int, topic: str) -> None:
        """The node is subscribed no more."""
        if topic in self._joined:
            self._joined[topic][node] = inf

    def since(self, node: int) -> float:
        """When the node's process started; infinity when it does not run."""
        return self._since[node]

    def listens(self, node: int, topic: str) -> bool:
        """Whether the node is subscribed now."""
        return topic in self._joined and self._joined[topic][node] < inf

    def running(self) -> int:
        """How many nodes run."""
        return self._peers - self._since.count(inf)

    def listening_since(self, topic: str, at: float) -> NDArray[np.bool_]:
        """For each node, whether it has run and been subscribed ever since `at`."""
        if topic not in self._joined:
            return np.zeros(self._peers, dtype=np.bool_)
        running = np.frombuffer(self._since, dtype=np.float64) <= at
        return running & (np.frombuffer(self._joined[topic], dtype=np.float64) <= at)

    def _log(self, node: int, now: float, up: int) -> None:
        self.times.append(now)
        self.nodes.append(node)
        self.ups.append(up)
