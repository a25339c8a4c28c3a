"""Who is at the other end, and who we are: identify on every connection, pushes when something changes.

A new connection is asked who it is and answers the same question; what it says goes through `trust` into
the peerstore. What it saw of us goes into `observed`; what we have to say goes out through `pushes`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

import trio
from multiaddr import Multiaddr

from p2p.config import HostConfig
from p2p.errors import P2PError
from p2p.events import HostEvent, PeerConnected, PeerDisconnected, PeerIdentified
from p2p.identify.driver import PROTOCOL, PUSH_PROTOCOL, receive_info, send_info
from p2p.identify.observed import ObservedAddresses, Report
from p2p.identify.pushes import PushPlanner, PushRate
from p2p.identify.trust import believable, check_record, is_local
from p2p.identify.wire import PeerInfo, encode, with_observed
from p2p.keys import KeyPair
from p2p.limits import StreamLimit
from p2p.peer_id import PeerId
from p2p.peer_record import SignedRecord, own_addresses, sign_record
from p2p.peerstore import TTL_CONNECTED, PeerStore
from p2p.scope import open_scope, reset_on_error
from p2p.stream import Connection, Stream

logger = logging.getLogger(__name__)

MAX_INBOUND = 10  # identify and push streams of one peer at once, as rust of one connection
COLLECT_INTERVAL = 60.0  # seconds between two collections of the peerstore, as go's

C = TypeVar("C", bound=Connection)


class IdentifyService(Generic[C]):
    """Identify for one host, which owns `run` and hands over its events, connections and streams."""

    def __init__(
        self,
        *,
        key: KeyPair,
        peerstore: PeerStore,
        config: HostConfig,
        listen_addresses: Callable[[], Sequence[Multiaddr]],
        protocols: Callable[[], Iterable[str]],
        connection: Callable[[PeerId], C | None],
        open_stream: Callable[[C, Sequence[str]], Awaitable[Stream]],
        notify: Callable[[HostEvent], None],
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._key = key
        self._peerstore = peerstore
        self._config = config
        self._listen_addresses = listen_addresses
        self._protocols = protocols
        self._connection = connection
        self._open_stream = open_stream
        self._notify = notify
        self._wall_clock = wall_clock
        self._observed = ObservedAddresses()
        self._planner = PushPlanner()
        self._news = trio.Event()
        self._inbound = StreamLimit(MAX_INBOUND)
        self._push_rates: dict[PeerId, PushRate] = {}  # of connected peers
        self._record: SignedRecord | None = None
        self._said: tuple[tuple[Multiaddr, ...], tuple[str, ...]] | None = None  # what `_messages` are about
        self._messages: list[bytes] = []

    # What we say

    def addresses(self) -> list[Multiaddr]:
        """Where others can dial us, without /p2p/: where we listen, then what enough observers confirm."""
        return list(dict.fromkeys([*self._listen_addresses(), *self._observed.confirmed]))

    def observed_addresses(self) -> list[Multiaddr]:
        """Our addresses that enough observers confirm."""
        return list(self._observed.confirmed)

    def record(self) -> bytes | None:
        """Our own signed record, to be passed on; None while we have no address."""
        self._own_messages()
        return self._record.envelope if self._record is not None else None

    def handle_changed(self) -> None:
        """Our protocols or addresses have changed: connected peers are told, once for all changes of now."""
        self._planner.handle_changed()
        self._news.set()

    def handle_event(self, event: HostEvent) -> None:
        """Follows who comes and goes."""
        match event:
            case PeerConnected(peer=peer):
                connection = self._connection(peer)
                limited = connection is not None and not is_local(connection.remote_address)
                self._peerstore.set_connected(peer, True)
                self._planner.handle_connected(peer, limited=limited)
                self._push_rates[peer] = PushRate()
            case PeerDisconnected(peer=peer):
                self._peerstore.set_connected(peer, False)
                self._planner.handle_disconnected(peer)
                self._push_rates.pop(peer, None)
                self._observed.handle_disconnected(peer, trio.current_time())
                self._news.set()
            case PeerIdentified():
                pass

    # Streams

    async def identify(self, connection: C) -> None:
        """Asks the other end of a new connection who it is, within the deadline of the configuration."""
        with trio.move_on_after(self._config.identify_timeout):
            try:
                stream = await self._open_stream(connection, [PROTOCOL])
                with reset_on_error(stream):
                    info = await receive_info(stream)
                    await stream.aclose()
                self._learn(connection, info)
            except P2PError as exc:
                logger.info("%s does not identify itself: %s", connection.peer, exc)

    async def answer(self, stream: Stream) -> None:
        """Handler of identify: says who we are. Raises `trio.TooSlowError`."""
        with self._inbound.admitted(stream) as admitted, trio.fail_after(self._config.identify_timeout):
            if admitted:
                self._planner.handle_told(stream.peer)
                await send_info(stream, self._messages_for(self._connection(stream.peer)))

    async def receive_push(self, stream: Stream) -> None:
        """Handler of pushes: takes what the peer says of itself now.

        Raises `RemoteProtocolError` (`AuthenticationFailed` when it speaks for another),
        `ConnectionLost`, `trio.TooSlowError`: they cost the stream, and nothing of it is taken.
        """
        connection = self._connection(stream.peer)
        if connection is None or not self._in_rate(connection):
            stream.reset()
            return
        with self._inbound.admitted(stream) as admitted, trio.fail_after(self._config.identify_timeout):
            if admitted:
                self._learn(connection, await receive_info(stream))

    # Tasks

    async def run(self) -> None:
        """Pushes changes, lets observations expire and the peerstore collect, until cancelled."""
        collect_at = trio.current_time() + COLLECT_INTERVAL
        async with open_scope() as nursery:
            while True:
                now = trio.current_time()
                if now >= collect_at:
                    self._peerstore.collect()
                    collect_at = now + COLLECT_INTERVAL
                if self._observed.handle_timer(now):
                    self._planner.handle_changed()
                for peer in self._planner.start(now):
                    nursery.start_soon(self._push, peer)
                deadlines = (collect_at, self._observed.next_deadline(), self._planner.next_deadline(now))
                with trio.CancelScope(deadline=min(each for each in deadlines if each is not None)):
                    await self._news.wait()
                self._news = trio.Event()

    async def _push(self, peer: PeerId) -> None:
        """Tells `peer` who we are now. A push that fails is not repeated: the peer asks when it returns."""
        try:
            with trio.move_on_after(self._config.identify_timeout):
                if (connection := self._connection(peer)) is not None:
                    stream = await self._open_stream(connection, [PUSH_PROTOCOL])
                    with reset_on_error(stream):
                        await send_info(stream, self._messages_for(connection))
                        await stream.aclose()
        except P2PError as exc:
            logger.debug("cannot push our changes to %s: %s", peer, exc)
        finally:
            self._planner.handle_done(peer)
            self._news.set()

    # What they say

    def _learn(self, connection: C, info: PeerInfo) -> None:
        """Takes what the peer said of itself; what it left out is unchanged.

        Raises `AuthenticationFailed` for the record of another peer: then nothing is taken.
        """
        peer = connection.peer
        signed = self._verified(peer, info.record) if info.record is not None else None
        if info.public_key is not None and self._peerstore.public_key(peer) is None:
            self._peerstore.add_public_key(peer, info.public_key)
        self._learn_addresses(connection, signed, info)
        if info.protocols:
            self._peerstore.set_protocols(peer, info.protocols)
        if info.agent:
            self._peerstore.set_agent(peer, info.agent)
        if self._connection(peer) is None:
            return
        protocols = self._peerstore.protocols(peer)
        self._planner.handle_identified(peer, takes_pushes=PUSH_PROTOCOL in protocols)
        if info.observed is not None:
            self._learn_observation(connection, info.observed)
        self._news.set()
        self._notify(PeerIdentified(peer=peer, protocols=protocols, agent=self._peerstore.agent(peer)))

    def _verified(self, peer: PeerId, envelope: bytes) -> SignedRecord | None:
        known = self._peerstore.signed_record(peer)
        if known is not None and known.envelope == envelope:
            return known  # its signature was checked when it came first
        return check_record(peer, envelope)

    def _learn_addresses(self, connection: C, signed: SignedRecord | None, info: PeerInfo) -> None:
        """What the peer signed, or else what it said; unless none of it is of use where we are."""
        remote = connection.remote_address
        if signed is not None:
            usable = believable(signed.record.addresses, remote)
            if usable and self._peerstore.add_record(signed, TTL_CONNECTED, usable):
                return
        usable = believable(own_addresses(connection.peer, info.listen), remote)
        if usable:
            self._peerstore.replace_addresses(connection.peer, usable, TTL_CONNECTED)

    def _learn_observation(self, connection: C, observed: Multiaddr) -> None:
        report = Report(
            observer=connection.peer,
            address=connection.remote_address,
            outbound=connection.outbound,
            observed=observed,
        )
        if self._observed.handle_report(report, self._listen_addresses()):
            logger.info("our confirmed addresses are %s", [str(each) for each in self._observed.confirmed])
            self.handle_changed()

    # Helpers

    def _own_messages(self) -> list[bytes]:
        """What we say of ourselves, encoded: made anew, and our record signed anew, when it has changed."""
        said = (tuple(self.addresses()), tuple(self._protocols()))
        if said != self._said:
            addresses, protocols = said
            if self._said is None or addresses != self._said[0]:
                self._sign(addresses)
            info = PeerInfo(
                public_key=self._key.public,
                listen=addresses,
                protocols=protocols,
                agent=self._config.agent,
                record=self._record.envelope if self._record is not None else None,
            )
            self._said, self._messages = said, encode(info)
        return self._messages

    def _sign(self, addresses: Sequence[Multiaddr]) -> None:
        """A new record, newer than the last one also when the clock was set back meanwhile."""
        seq = self._wall_clock()
        if self._record is not None:
            seq = max(seq, self._record.record.seq + 1)
        if addresses:
            self._record = sign_record(self._key, seq, addresses)

    def _messages_for(self, connection: C | None) -> list[bytes]:
        first, *rest = self._own_messages()
        if connection is not None:
            first = with_observed(first, connection.remote_address)
        return [first, *rest]

    def _in_rate(self, connection: C) -> bool:
        """Whether a push of this peer is within its rate; peers on this machine have none, as in go."""
        rate = self._push_rates.get(connection.peer)
        return rate is None or is_local(connection.remote_address) or rate.take(trio.current_time())
