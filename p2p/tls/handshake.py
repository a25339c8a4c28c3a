"""libp2p's TLS 1.3 handshake, without I/O: OpenSSL between two memory buffers.

    client                                           server
    RUNNING  -- ClientHello ---------------------->  RUNNING
             <- ServerHello .. Certificate .. Fin --
    DONE     -- Certificate .. Finished ---------->  DONE, or an alert

The client verifies the server's certificate, its id and the ALPN result before it lets anything out
behind the ClientHello: a wrong peer sees a key share, the ALPN list and perhaps an alert, and neither
our certificate nor our identity. The server must show its own first, and learns who dialed last; so a
client is DONE before the server has verified it, and a refusal comes with the first read.
After an error the machine is FAILED; `data_to_send` may then have an alert, and the connection is dropped.
OpenSSL draws its own randomness, so unlike our other machines two runs differ in their bytes.
Source: libp2p/specs tls/tls.md; RFC 8446, "2. Protocol Overview".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from OpenSSL import SSL

from p2p.errors import (
    AuthenticationFailed,
    LocalProtocolError,
    MessageTooLarge,
    NegotiationFailed,
    P2PError,
)
from p2p.keys import PublicKey
from p2p.peer_id import PeerId
from p2p.scratch import Scratch
from p2p.stream import Data
from p2p.tls.channel import Channel, drain
from p2p.tls.context import LIBP2P, PeerCheck
from p2p.tls.failure import handshake_failure
from p2p.tls.record import RecordFraming

MAX_HANDSHAKE = 64 << 10  # bytes that a peer may send before it is verified; ours take 2 KiB


class State(Enum):
    """Where a handshake stands."""

    RUNNING = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeCompleted:
    """The other side is proven (to a server), or will be by its first answer's decryption (to a client)."""

    remote_key: PublicKey
    remote_peer: PeerId
    early_muxer: str | None  # what ALPN settled; None when a multistream round must
    channel: Channel
    surplus: bytes  # came behind the handshake: the beginning of what `channel` opens


class Handshake:
    """One side of one handshake. `now` has a time zone; `muxers` are in order of preference."""

    def __init__(
        self,
        context: SSL.Context,
        *,
        client: bool,
        now: datetime,
        scratch: Scratch,
        expected: PeerId | None = None,
        muxers: Sequence[str] = (),
    ) -> None:
        self._check = PeerCheck(expected=expected, muxers=muxers, now=now)
        self._scratch = scratch
        self._client = client
        self._connection = SSL.Connection(context)
        self._connection.set_app_data(self._check)
        self._framing = RecordFraming()
        self._received = 0  # bytes
        self._completed: HandshakeCompleted | None = None
        self._state = State.RUNNING
        if client:
            self._connection.set_alpn_protos(self._check.protocols)
            self._connection.set_connect_state()
            self._step()
        else:
            self._connection.set_accept_state()

    def receive_data(self, data: Data) -> None:
        """Takes what came, as far as the handshake goes; what is behind becomes the `surplus`.

        Raises `AuthenticationFailed` when the peer is not who it must be, `NegotiationFailed` when it
        speaks another TLS or another protocol in it, `RemoteProtocolError` when it breaks the rules,
        `LocalProtocolError` when the handshake is over.
        """
        if self._state is not State.RUNNING:
            raise LocalProtocolError("the TLS handshake is over")
        try:
            self._receive(memoryview(data))
        except P2PError:
            self._state = State.FAILED
            raise

    def data_to_send(self) -> bytes:
        """What must go to the peer now, after an error too; empty when it is the peer's turn."""
        return drain(self._connection)

    def next_event(self) -> HandshakeCompleted | None:
        """The outcome, once; None before. `data_to_send` may still hold the last message."""
        completed, self._completed = self._completed, None
        return completed

    def _receive(self, data: memoryview) -> None:
        """Gives OpenSSL one record at a time, so that nothing behind the last one gets into it."""
        at = 0
        for end in self._framing.ends(data):
            self._feed(data[at:end])
            at = end
            if self._step():
                self._complete(surplus=bytes(data[at:]))
                return
        self._feed(data[at:])

    def _feed(self, data: memoryview) -> None:
        self._received += len(data)
        if self._received > MAX_HANDSHAKE:
            raise MessageTooLarge(self._received, MAX_HANDSHAKE)
        if data:
            self._connection.bio_write(data)

    def _step(self) -> bool:
        """Lets OpenSSL go on; whether it is done."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as exc:
            raise (self._check.failure or handshake_failure(exc)) from exc
        return True

    def _complete(self, surplus: bytes) -> None:
        try:
            key, peer = self._verified()
            protocol = self._protocol()
        except P2PError:
            drain(self._connection)  # a client's certificate is in there: not for this peer
            raise
        self._connection.set_app_data(None)
        self._completed = HandshakeCompleted(
            remote_key=key,
            remote_peer=peer,
            early_muxer=None if protocol == LIBP2P else protocol.decode(),
            channel=Channel(self._connection, self._scratch),
            surplus=surplus,
        )
        self._state = State.DONE

    def _verified(self) -> tuple[PublicKey, PeerId]:
        """Who the peer is. Raises `AuthenticationFailed`, above all when nobody was looked at."""
        if self._check.verified is None:
            raise AuthenticationFailed("the peer finished the TLS handshake without a certificate")
        chain = self._connection.get_peer_cert_chain() or []  # without the peer's own on a server
        if len(chain) > (1 if self._client else 0):
            raise AuthenticationFailed("the peer sent more than one certificate")
        return self._check.verified

    def _protocol(self) -> bytes:
        protocol = self._connection.get_alpn_proto_negotiated()
        if protocol not in self._check.protocols:
            raise NegotiationFailed("the peer speaks TLS, but not libp2p's: it did not negotiate by ALPN")
        return protocol
