"""Reaches a peer: names are resolved, addresses race, failing ones are left alone for a while.

    addresses ─┬─ with a name → resolve ─┐
               └─ without one ───────────┴→ plan → race of [connect → upgrade] → one connection

One deadline lies over all of it; each transport connection has a shorter one of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_interface

import trio
from multiaddr import Multiaddr

from p2p.address import split_peer
from p2p.config import HostConfig
from p2p.dialing.backoff import Backoff
from p2p.dialing.lookup import Lookup, resolve
from p2p.dialing.plan import MAX_DIALED_ADDRESSES, DialPlan, Interface
from p2p.dialing.race import Race
from p2p.dialing.resolver import Resolution, has_name
from p2p.errors import ConnectionLost, DialFailed, InvalidAddress, P2PError
from p2p.peer_id import PeerId
from p2p.stream import ByteStream, MuxedConnection, Transport

UpgradeOutbound = Callable[[ByteStream, PeerId], Awaitable[MuxedConnection]]


class Dialer:
    """Dials for one host: the addresses that fail and the number of attempts at once are its own."""

    def __init__(
        self, transports: Sequence[Transport], upgrade: UpgradeOutbound, lookup: Lookup, config: HostConfig
    ) -> None:
        self.transports = tuple(transports)
        self.upgrade = upgrade
        self.lookup = lookup
        self.config = config
        self.backoff = Backoff()
        self.slots = trio.CapacityLimiter(config.max_dials)

    def transport(self, address: Multiaddr) -> Transport | None:
        """The transport that can dial `address`, and listen on it."""
        return next((transport for transport in self.transports if transport.can_dial(address)), None)

    async def dial(self, peer: PeerId, addresses: Sequence[Multiaddr]) -> tuple[Multiaddr, MuxedConnection]:
        """(address, connection) of the first address that leads to `peer`. Raises `DialFailed`.

        Nothing runs in the connection yet; whoever gets it closes it.
        """
        dial = _Dial(self, peer, addresses)
        won = None
        with trio.move_on_after(self.config.dial_timeout) as whole:
            won = await dial.run()
        if won is not None:
            return won
        if whole.cancelled_caught:
            dial.handle_deadline()
        raise DialFailed(peer, dial.reasons())

    async def resolve(self, address: Multiaddr) -> list[Multiaddr]:
        """The addresses that `address` stands for: itself, or what its name resolves to.

        Raises `InvalidAddress` with the reason when there are none.
        """
        resolution = Resolution([address])
        found: list[Multiaddr] = []
        with trio.move_on_after(self.config.dial_timeout):
            await resolve(resolution, self.lookup, found.extend)
        resolution.handle_deadline()
        if not found:
            raise InvalidAddress(f"cannot use {'; '.join(resolution.reasons)}")
        return found


class _Dial:
    """One dial of one peer, and why its addresses failed."""

    def __init__(self, dialer: Dialer, peer: PeerId, addresses: Sequence[Multiaddr]) -> None:
        self._dialer = dialer
        self._peer = peer
        self._reasons: list[str] = []
        self._num_refused = 0
        self._connecting: dict[Multiaddr, None] = {}  # past the queue for a slot
        self._plan = DialPlan(local_interfaces() if len(addresses) > 1 else ())
        self._race = Race(self._plan, self._attempt)
        names = [address for address in addresses if has_name(address) and self._is_ours(address)]
        self._resolution = Resolution(names, peer)
        self._add([address for address in addresses if not has_name(address)])

    async def run(self) -> tuple[Multiaddr, MuxedConnection] | None:
        """The winner of the race, or None."""
        if self._resolution.done and (only := self._plan.only()) is not None:
            with suppress(P2PError):  # one runner needs no referee, whose tasks cost 0.1 ms
                return only, await self._attempt(only)
            return None
        return await self._race.run(self._search)

    def handle_deadline(self) -> None:
        """Who had a chance and did not use it is left alone for a while."""
        now = trio.current_time()
        for address in self._connecting:
            self._dialer.backoff.failed(address, now)
            self._reasons.append(f"{address}: no answer")
        self._resolution.handle_deadline()
        self._reasons.append(f"gave up after {self._dialer.config.dial_timeout:g} s")

    def reasons(self) -> list[str]:
        """A line for each address that did not lead to the peer."""
        left_out = self._plan.left_out + max(0, self._num_refused - MAX_DIALED_ADDRESSES)
        rest = [f"{left_out} more addresses were not tried"] if left_out else []
        return self._reasons + self._resolution.reasons + rest

    async def _search(self) -> None:
        await resolve(self._resolution, self._dialer.lookup, self._add)

    def _add(self, addresses: Sequence[Multiaddr]) -> None:
        usable = (self._usable(address) for address in addresses)
        self._race.add([address for address in usable if address is not None])

    def _usable(self, address: Multiaddr) -> Multiaddr | None:
        """`address` without the peer at its end, or None with a reason."""
        if not self._is_ours(address):
            return None
        try:
            place, _ = split_peer(address)
        except InvalidAddress:  # ends behind a relay: the transport knows what it means
            place = address
        if place is None or self._dialer.transport(place) is None:
            zoned = str(address).startswith("/ip6zone/")
            what = (
                "a zone has a meaning on one machine only"
                if zoned
                else "no transport for this kind of address"
            )
            self._refuse(f"{address}: {what}")
            return None
        wait = self._dialer.backoff.remaining(place, trio.current_time())
        if wait > 0:
            self._refuse(f"{address}: failed before, next try in {wait:.1f} s")
            return None
        return place

    def _is_ours(self, address: Multiaddr) -> bool:
        """Whether `address` may be one of this peer; otherwise there is a reason."""
        with suppress(InvalidAddress):
            _, named = split_peer(address)
            if named not in (None, self._peer):
                self._refuse(f"{address}: is the address of another peer")
                return False
        return True

    def _refuse(self, reason: str) -> None:
        self._num_refused += 1
        if self._num_refused <= MAX_DIALED_ADDRESSES:
            self._reasons.append(reason)

    async def _attempt(self, address: Multiaddr) -> MuxedConnection:
        """Connects and upgrades. Raises `ConnectionLost` with the address and the reason."""
        backoff = self._dialer.backoff
        async with self._dialer.slots:
            self._connecting[address] = None
            try:
                muxed = await self._connect(address)
            except P2PError as exc:
                reason = str(exc) if str(exc).startswith(f"{address}: ") else f"{address}: {exc}"
                del self._connecting[address]
                backoff.failed(address, trio.current_time())
                self._reasons.append(reason)
                raise ConnectionLost(reason) from exc
        backoff.succeeded(address)
        return muxed

    async def _connect(self, address: Multiaddr) -> MuxedConnection:
        transport = self._dialer.transport(address)
        assert transport is not None  # or it would not be in the plan
        raw: ByteStream | None = None
        with trio.move_on_after(self._dialer.config.connect_timeout):
            raw = await transport.dial(address)
        if raw is None:
            raise ConnectionLost(f"no connection within {self._dialer.config.connect_timeout:g} s")
        return await self._dialer.upgrade(raw, self._peer)


def local_interfaces() -> list[Interface]:
    """The addresses of this machine with their networks."""
    import psutil  # a megabyte, for those who need to choose between addresses

    found: list[Interface] = []
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            try:
                bits = int(ip_interface(entry.netmask or "").ip).bit_count()
                found.append(ip_interface(f"{entry.address.partition('%')[0]}/{bits}"))
            except ValueError:  # a hardware address, or a tunnel without a mask
                continue
    return found
