"""A node through all its lives: what stays over a crash, and what runs between two of them.

start ──→ Life: gossip, connections, DHT, discovery, tasks ──crash──→ only `Node` stays
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from federated.errors import DataError, PluginError
from p2p.gossipsub.router import Router
from p2p.kad.responder import answer
from sim.cores.blobs import Blobs
from sim.cores.gossip import Gossip
from sim.cores.join import Discovery
from sim.cores.kad import Kad
from sim.cores.links import Dial, End
from sim.cores.task import Member
from sim.disk import SimDisk
from sim.redial import Redial

if TYPE_CHECKING:
    from random import Random

    from sim.cores.links import Links
    from sim.cores.world import World
    from sim.disk import SimFolder


class Node:
    """What a crash does not take: what the node was told to do, and whom it was told to dial."""

    __slots__ = ("_disk", "_rng", "life", "number", "powerless", "tasks", "topics", "wanted")

    def __init__(self, number: int, disk_rng: Random) -> None:
        self.number = number
        self._rng = disk_rng
        self._disk: SimDisk | None = None
        self.life: Life | None = None
        self.powerless = False  # it crashed silently: the whole machine is off
        self.topics: dict[str, float] = {}  # with their rates, 0 where it is not known
        self.tasks: dict[str, None] = {}
        self.wanted: dict[int, Redial] = {}

    @property
    def disk(self) -> SimDisk:
        """Its disk, made when it is first asked for: most nodes of a large network never write."""
        if self._disk is None:
            self._disk = SimDisk(self._rng)
        return self._disk

    def crash(self, *, keep_disk: bool, silently: bool) -> None:
        """The process is gone, if there is one."""
        life, self.life = self.life, None
        if life is not None:
            self.powerless = silently
            life.stop(silently=silently)
            if self._disk is not None:
                self._disk.crash(keep_disk)
            life.world.observer.crashed(self.number)


class Life:
    """One process of a node, from its start to its crash."""

    __slots__ = (
        "blobs",
        "dials",
        "discovery",
        "ends",
        "gossip",
        "kad",
        "links",
        "members",
        "node",
        "number",
        "running",
        "world",
    )

    def __init__(self, node: Node, world: World, links: Links) -> None:
        self.node = node
        self.number = node.number
        self.world = world
        self.links = links
        self.running = True
        self.ends: dict[int, End] = {}  # by the node at the other end, some of them not up yet
        self.dials: dict[int, Dial] = {}
        role = world.role(node.number)
        self.gossip = Gossip(self, role.router or Router)
        self.kad: Kad | None = Kad(self, role.answer or answer) if world.has_kad else None
        self.discovery: Discovery | None = (
            Discovery(self, self.kad) if self.kad is not None and world.joins else None
        )
        self.blobs: Blobs | None = None
        self.members: dict[str, Member] = {}

    def start(self) -> None:
        """Does what the node was told to do in earlier lives."""
        for topic, rate in self.node.topics.items():
            self.gossip.join(topic, rate)
        for name in self.node.tasks:
            self.join_task(name)
        if self.discovery is not None:
            self.discovery.start()
        for other in self.node.wanted:
            self.links.dial(self, other)

    @property
    def files(self) -> SimFolder:
        """The disk, for this process only."""
        return self.node.disk.mount()

    def open_blobs(self) -> Blobs:
        """The blobs of this process."""
        if self.blobs is None:
            self.blobs = Blobs(self)
        return self.blobs

    def join_task(self, name: str) -> None:
        """Takes part in a task, if it can run here."""
        try:
            member = self.members[name] = Member(self, name, self.world.shared(name))
            member.start()
        except (PluginError, DataError) as error:  # a peer reports that the task is refused, and lives on
            self.world.observer.waiting(self.number, str(error))

    def stop(self, *, silently: bool) -> None:
        """The process is gone."""
        self.running = False
        self.links.abandon(self, silently=silently)

    def connected(self) -> list[int]:
        """The nodes that this one has a connection to, ascending."""
        return sorted(other for other, end in self.ends.items() if end.up)

    # What arrives

    def receive(self, call: Callable[..., None], *arguments: object) -> None:
        """Runs a part of this node: an exception that comes out of it is a bug, and the node's end."""
        try:
            call(*arguments)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """A bug came up: the process ends as the real one would."""
        self.world.observer.failed(self.number, error)
        if self.running:
            self.node.crash(keep_disk=True, silently=False)

    # Connections

    def open(self, end: End) -> None:
        """A connection is up."""
        end.up = True
        wanted = self.node.wanted.get(end.other)
        if wanted is not None:
            wanted.connected()
        self.world.observer.connected(self.number, end.other)
        self.receive(self._meet, end)

    def _meet(self, end: End) -> None:
        self.gossip.open(end)
        if self.kad is not None:
            self.kad.open(end)
        if self.discovery is not None:
            self.discovery.open(end)
        for member in self.members.values():
            member.connected(self.world.peers[end.other], True)

    def lose(self, end: End) -> None:
        """A connection is gone, if it was not before."""
        if not self.running or self.ends.get(end.other) is not end:
            return
        del self.ends[end.other]
        if end.up:
            end.up = False
            self.world.observer.disconnected(self.number, end.other)
            self.receive(self._part, end)
        self._redial(end.other)

    def _part(self, end: End) -> None:
        self.gossip.lose(end)
        if self.kad is not None:
            self.kad.lose(end)
        if self.discovery is not None:
            self.discovery.lose(end)
        if self.blobs is not None:
            self.blobs.lose(end)
        for member in self.members.values():
            member.connected(self.world.peers[end.other], False)

    def dialed(self, other: int, connected: bool) -> None:
        """A dial of this node ended."""
        if not connected:
            self._redial(other)

    def _redial(self, other: int) -> None:
        wanted = self.node.wanted.get(other)
        if wanted is not None:
            heap = self.world.heap
            heap.plan(heap.now + wanted.wait(), self._dial_again, other)

    def _dial_again(self, other: int) -> None:
        if self.running:
            self.links.dial(self, other)
