"""One process of a node: the shipped host with its services, from its start to its crash."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from p2p.address import with_peer
from p2p.blobs import Blobs, BlobStore, open_blobs
from p2p.config import HostConfig
from p2p.discovery import open_discovery
from p2p.errors import DialFailed
from p2p.events import PeerConnected, PeerDisconnected
from p2p.gossipsub import Pubsub, open_gossipsub
from p2p.gossipsub.router import Router
from p2p.host import Host, open_host
from p2p.kad import Kad, open_kad
from p2p.kad.responder import answer
from p2p.scope import open_scope
from p2p.upgrade import ConnectionUpgrader, Upgrader
from sim.live.dht import Dht
from sim.live.gossip import Gossip
from sim.live.light import LightUpgrader
from sim.live.training import train
from sim.live.transport import SimTransport

if TYPE_CHECKING:
    from sim.live.node import Node

BLOB_CAPACITY = 1 << 30  # bytes
CONFIG = HostConfig(security=("noise",))  # OpenSSL takes its randomness from nobody else


class Life:
    """What a node runs until `scope` is cancelled. What it is told before its services stand waits."""

    def __init__(self, node: Node) -> None:
        self.scope = trio.CancelScope()
        self.gossip: Gossip | None = None  # once the services stand
        self.dht: Dht | None = None
        self._node = node
        self._setup = node.rung.setup
        self._role = node.rung.role(node.number)
        self._nursery: trio.Nursery | None = None
        self._host: Host | None = None
        self._blobs: Blobs | None = None
        self._files = node.disk.mount()
        self._waiting: list[tuple[Callable[..., Awaitable[None]], tuple[Any, ...]]] = []

    async def run(self) -> None:
        """The whole life."""
        with self.scope:
            async with AsyncExitStack() as stack:
                host = self._host = await stack.enter_async_context(self._open_host())
                pubsub = await stack.enter_async_context(self._open_pubsub(host))
                kad = await self._open_kad(stack, host)
                if self._setup.scenario.task:
                    store = BlobStore(self._files.sub("blobs"), BLOB_CAPACITY)
                    self._blobs = await stack.enter_async_context(open_blobs(host, store))
                nursery = await stack.enter_async_context(open_scope())
                nursery.start_soon(self._follow_host, host)
                await host.listen(self._node.rung.fabric.address(self._node.number))
                self.gossip = Gossip(self._node, pubsub)
                stack.callback(self.gossip.close)
                self._begin(nursery, self.gossip)
                if kad is not None:
                    await self._join(stack, host, kad)
                await trio.sleep_forever()

    def start(self, call: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Runs `call` as a task of this life, as soon as its services stand."""
        if self._nursery is None:
            self._waiting.append((call, arguments))
        else:
            self._nursery.start_soon(call, *arguments)

    def _begin(self, nursery: trio.Nursery, gossip: Gossip) -> None:
        """The services stand: does what the node was told in earlier lives, and meanwhile."""
        self._nursery = nursery
        for topic, rate in self._node.topics.items():
            gossip.subscribe(topic, rate)
        for task in self._node.tasks:
            nursery.start_soon(self.train, task)
        for call, arguments in self._waiting:
            nursery.start_soon(call, *arguments)
        for other in self._node.wanted:
            self._node.dial(other)

    # Services

    def _open_host(self) -> AbstractAsyncContextManager[Host]:
        number, rung, rng, config = self._node.number, self._node.rung, self._node.rng, CONFIG
        key = self._setup.keys[number]
        upgrader: ConnectionUpgrader = (
            LightUpgrader(key, self._setup.heap, rng.randbytes)
            if self._setup.scenario.rung == "light"
            else Upgrader(key, config, rng, None, entropy=rng.randbytes)
        )
        return open_host(
            key=key,
            transports=[SimTransport(rung.fabric, number)],
            rng=rng,
            config=config,
            upgrader=upgrader,
            wall_clock=self._wall_clock,
        )

    def _open_pubsub(self, host: Host) -> AbstractAsyncContextManager[Pubsub]:
        rung = self._node.rung
        router = self._role.router or Router
        return open_gossipsub(
            host,
            seqno=int(self._wall_clock() * 1e9),
            make_router=partial(router, verify=rung.verification),
        )

    async def _open_kad(self, stack: AsyncExitStack, host: Host) -> Kad | None:
        """The DHT, where the scenario uses it."""
        scenario = self._setup.scenario
        if not scenario.dht and scenario.topology.kind != "join":
            return None
        kad = await stack.enter_async_context(
            open_kad(host, wall_clock=self._wall_clock, answer=self._role.answer or answer)
        )
        self.dht = Dht(self._node.number, kad, self._setup.observer)
        return kad

    async def _join(self, stack: AsyncExitStack, host: Host, kad: Kad) -> None:
        """Discovery, in a topology that grows by itself."""
        topology, rung = self._setup.scenario.topology, self._node.rung
        if topology.kind == "join":
            bootstrap = [
                with_peer(rung.fabric.address(other), rung.peers[other])
                for other in range(min(topology.bootstrap, len(rung.peers)))
                if other != self._node.number
            ]
            await stack.enter_async_context(
                open_discovery(host, kad, bootstrap, target_peers=topology.degree)
            )

    def _wall_clock(self) -> float:
        return self._setup.network.wall_clock(self._node.number)

    async def _follow_host(self, host: Host) -> None:
        numbers = self._node.rung.numbers
        with host.events() as events:
            async for event in events:
                match event:
                    case PeerConnected(peer=peer):
                        self._node.handle_connected(numbers[peer])
                    case PeerDisconnected(peer=peer):
                        self._node.handle_disconnected(numbers[peer])

    # What takes time

    async def dial(self, other: int) -> bool:
        """Whether there is a connection to `other` now."""
        assert self._host is not None
        rung = self._node.rung
        try:
            await self._host.connect(rung.peers[other], [rung.fabric.address(other)])
        except DialFailed:
            return False
        return True

    async def train(self, name: str) -> None:
        """Takes part in the task of that name."""
        assert self._host is not None
        assert self.gossip is not None
        assert self._blobs is not None
        await train(self._node, self._host, self.gossip.pubsub, self._blobs, self._files, name)
