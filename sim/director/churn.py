"""Nodes that come and go: sessions and absences drawn from a distribution with a given median.

Medians and shapes of real networks: Stutzbach & Rejaie, "Understanding Churn in Peer-to-Peer Networks",
IMC 2006 (Weibull, shape 0.34 to 0.69); Trautwein et al., SIGCOMM 2022 (IPFS: half of the sessions are
shorter than 8 minutes).
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from sim.director.selection import drawn, share_of

if TYPE_CHECKING:
    from random import Random

    from sim.director.presence import Presence
    from sim.director.trouble import Trouble
    from sim.heap import EventHeap
    from sim.scenario.model import Churn

SHORTEST = 0.2  # seconds of a session or an absence: a process does not start and end in less


def span(churn: Churn, median: float, rng: Random) -> float:
    """Seconds of one session or absence; half of them are longer than `median`."""
    match churn.kind:
        case "exponential":
            seconds = rng.expovariate(log(2) / median)
        case "lognormal":
            seconds = rng.lognormvariate(log(median), churn.shape)
        case "weibull":
            seconds = rng.weibullvariate(median / log(2) ** (1 / churn.shape), churn.shape)
    return max(SHORTEST, seconds)


class ChurnPlan:
    """One churn of a scenario. Whoever is away at its end comes back then."""

    def __init__(self, churn: Churn, heap: EventHeap, rng: Random, presence: Presence, peers: int) -> None:
        self._churn, self._heap, self._rng, self._presence = churn, heap, rng, presence
        self.nodes = drawn(range(peers), share_of(peers, churn.share), rng)
        self._end = churn.start + churn.seconds

    def plan(self, trouble: Trouble) -> None:
        """The first session of each node begins with the churn."""
        if self.nodes:
            trouble.note(self._churn.start, self._end, "churn")
        for node in self.nodes:
            self._session(node, self._churn.start)

    def _session(self, node: int, start: float) -> None:
        leave = start + span(self._churn, self._churn.session, self._rng)
        if leave < self._end:
            self._heap.plan(leave, self._leave, node)

    def _leave(self, node: int) -> None:
        self._presence.take_down(node, keep_disk=self._churn.keep_disk)
        away = span(self._churn, self._churn.absence, self._rng)
        self._heap.plan(min(self._heap.now + away, self._end), self._return, node)

    def _return(self, node: int) -> None:
        self._presence.bring_back(node)
        self._session(node, self._heap.now)
