"""The transport of a simulated node: dials and listens over the fabric, at /ip4/10.x.y.z/tcp/4001."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress
from p2p.waiter import Waiter
from sim.live.fabric import CALLER_PORT, PACKET, Endpoint, Fabric, Listener

if TYPE_CHECKING:
    from multiaddr import Multiaddr


class SimTransport:
    """A `p2p.stream.Transport` for the node `node`."""

    def __init__(self, fabric: Fabric, node: int) -> None:
        self._fabric = fabric
        self._node = node

    def can_dial(self, address: Multiaddr) -> bool:
        """Whether some node of this run has the address."""
        return self._fabric.node_at(address) is not None

    async def dial(self, address: Multiaddr) -> Endpoint:
        """Connects within one round trip. Raises `ConnectionLost` when nobody listens there.

        A node behind a NAT, without power or cut off does not answer: the caller's deadline ends that.
        """
        target = self._fabric.node_at(address)
        if target is None:
            raise ConnectionLost(f"{address}: no such node")
        if not self._fabric.network.reachable(self._node, target):
            await trio.sleep_forever()
        return await _Dial(self._fabric, self._node, target).wait()

    async def listen(self, address: Multiaddr) -> Listener:
        """Listens on the node's address. Raises `AddressInUse`, `InvalidAddress`."""
        await trio.lowlevel.checkpoint()
        if self._fabric.node_at(address) != self._node:
            raise InvalidAddress(f"node {self._node} cannot listen on {address}")
        if self._node in self._fabric.listeners:
            raise AddressInUse(f"node {self._node} listens already")
        return Listener(self._fabric, self._node)


class _Dial:
    """One connection being made."""

    def __init__(self, fabric: Fabric, source: int, target: int) -> None:
        self._fabric, self._source, self._target = fabric, source, target
        self._waiter = Waiter()
        self._given_up = False
        self._made: Endpoint | None = None
        self._refused = False

    async def wait(self) -> Endpoint:
        """The connection. Raises `ConnectionLost`."""
        self._fabric.network.send(self._source, self._target, PACKET, self._call)
        try:
            while self._made is None:
                await self._waiter.wait()
                if self._refused:
                    raise ConnectionLost(f"{self._fabric.address(self._target)}: connection refused")
        except BaseException:
            self._given_up = True
            raise
        return self._made

    def _call(self) -> None:
        """The SYN arrives."""
        fabric, source, target = self._fabric, self._source, self._target
        if fabric.off[target] or self._given_up:
            return
        listener = fabric.listeners.get(target)
        if listener is None:
            fabric.network.send(target, source, PACKET, self._refuse)
            return
        ours, theirs = Endpoint(fabric, source, target), Endpoint(fabric, target, source)
        ours.twin, theirs.twin = theirs, ours
        if listener.offer(theirs, fabric.address(source, CALLER_PORT)):
            fabric.network.send(target, source, PACKET, self._connect, ours)
        else:
            ours.break_off("nobody accepts")
            theirs.break_off("nobody accepts")
            fabric.network.send(target, source, PACKET, self._refuse)

    def _connect(self, endpoint: Endpoint) -> None:
        """The SYN-ACK arrives."""
        if self._given_up or endpoint.dead:
            endpoint.close()
        else:
            self._made = endpoint
            self._waiter.wake()

    def _refuse(self) -> None:
        self._refused = True
        self._waiter.wake()
