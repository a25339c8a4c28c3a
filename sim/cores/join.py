"""One node's discovery, in a topology that grows by itself: carries out what the `Planner` decides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from p2p.discovery.planner import Action, Dial, DialEnded, Event, Known, Planner, Search, Searched
from p2p.events import PeerConnected, PeerDisconnected, PeerIdentified
from sim.cores.settings import KAD_PROTOCOL
from sim.cores.timer import Timer

if TYPE_CHECKING:
    from p2p.peer_id import PeerId
    from sim.cores.kad import Kad
    from sim.cores.links import End
    from sim.cores.node import Life

AGENT = "sim"


class Discovery:
    """The planner of one life with its clock, its dials and its searches."""

    def __init__(self, life: Life, kad: Kad) -> None:
        world = life.world
        topology = world.setup.scenario.topology
        self._life = life
        self._kad = kad
        self._planner = Planner(
            local=world.peers[life.number],
            bootstrap=world.peers[: topology.bootstrap],
            protocol=KAD_PROTOCOL,
            target_peers=topology.degree,
            rng=world.join_rng,
        )
        self._timer = Timer(life, self._planner.next_deadline, self._due)

    def start(self) -> None:
        """Dials the first peers."""
        self._handle(Known(peers=()))

    def open(self, end: End) -> None:
        """There is a connection."""
        peer = self._life.world.peers[end.other]
        self._handle(PeerConnected(peer=peer, outbound=end.outbound))
        self._handle(PeerIdentified(peer=peer, protocols=(KAD_PROTOCOL,), agent=AGENT))

    def lose(self, end: End) -> None:
        """A connection is gone."""
        self._handle(PeerDisconnected(peer=self._life.world.peers[end.other]))

    def _handle(self, event: Event) -> None:
        self._perform(self._planner.handle(event, self._life.world.heap.now))

    def _due(self, now: float) -> None:
        self._perform(self._planner.handle_timer(now))

    def _perform(self, actions: Sequence[Action]) -> None:
        life = self._life
        for action in actions:
            match action:
                case Dial(peer=peer):
                    life.links.dial(life, life.world.numbers[peer], partial(self._dialed, peer))
                case Search():
                    self._kad.refresh(self._searched)
        self._timer.arm()

    def _dialed(self, peer: PeerId, connected: bool) -> None:
        self._handle(DialEnded(peer=peer, connected=connected))

    def _searched(self, heard: list[PeerId]) -> None:
        self._handle(Known(peers=list(self._kad.met)))
        self._handle(Searched(heard=heard))
