"""The nodes come and dial each other. Links that are lost are the rung's business, as they are a peer's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sim.director.topology import Link, links, through_nats, with_members

if TYPE_CHECKING:
    from random import Random

    from sim.director.presence import Presence
    from sim.director.trouble import Trouble
    from sim.heap import EventHeap
    from sim.rung import Rung
    from sim.scenario.model import Scenario

DIAL_AFTER = 0.1  # seconds from a start to the first dial: the process opens its port first
MESHES = 3.0  # seconds from the last dial until meshes have formed: three heartbeats


class Connections:
    """Brings the nodes in. `dialable(node)` is true of a node that everybody can dial."""

    def __init__(
        self,
        scenario: Scenario,
        heap: EventHeap,
        rng: Random,
        rung: Rung,
        members: Iterable[Sequence[int]],
        dialable: Callable[[int], bool],
        attacks: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """`members` are those of each task: in a fixed topology they are linked with each other as well.

        `attacks` are nodes that have no place in it, and whom each of them dials instead.
        """
        attacks = attacks or {}
        self._topology, self._peers = scenario.topology, scenario.peers
        self._heap, self._rng, self._rung = heap, rng, rung
        inside = [node for node in range(self._peers) if node not in attacks]
        self.links: list[Link] = [
            (inside[dialer], inside[dialed]) for dialer, dialed in links(self._topology, len(inside), rng)
        ]
        if self._topology.kind != "join":
            self.links = with_members(self.links, members, rng)
        if scenario.network.nat:
            self.links = through_nats(self.links, dialable, self._peers, rng)
        self._attacks = attacks

    def plan(self, presence: Presence, trouble: Trouble) -> None:
        """Whoever joins through bootstrap nodes dials them when he comes, and when he is back.

        In a fixed topology the nodes come in the first half of the time and dial in the second.
        """
        over = self._topology.over
        joining = self._topology.kind == "join"
        coming = over if joining else over / 2
        for node in range(self._peers):
            self._heap.plan(coming * node / self._peers, presence.come, node)
        trouble.note(0.0, over + DIAL_AFTER, "coming", MESHES)
        for dialer, targets in self._attacks.items():
            for dialed in targets:
                at = self._rng.uniform(over / 2, over) + DIAL_AFTER
                self._heap.plan(at, self._rung.connect, dialer, dialed)
        if joining:
            presence.on_start.append(self._join)
            return
        for dialer, dialed in self.links:
            self._heap.plan(
                self._rng.uniform(over / 2, over) + DIAL_AFTER, self._rung.connect, dialer, dialed
            )

    def _join(self, node: int) -> None:
        if node in self._attacks:
            return
        for first in range(min(node, self._topology.bootstrap)):
            self._heap.plan(self._heap.now + DIAL_AFTER, self._dial, node, first)

    def _dial(self, node: int, first: int) -> None:
        if self._rung.alive(node):
            self._rung.connect(node, first)
