"""Raw → secured → muxed: what happens to every connection before its first stream.

    [private network] → multistream → noise or TLS → [multistream, unless it was settled early] → yamux

The caller sets one deadline over all of it. A failure closes the raw stream.
Source: libp2p/specs connections/README.md, "Upgrading connections"; connections/
inlined-muxer-negotiation.md; pnet/Private-Networks-PSK-V1.md.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from p2p import multistream, noise
from p2p.config import HostConfig
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.scope import close_forcefully
from p2p.stream import ByteStream, MuxedConnection, SecureStream
from p2p.yamux import PROTOCOL as YAMUX
from p2p.yamux import WindowBudget, YamuxConnection

if TYPE_CHECKING:
    from p2p.pnet import PreSharedKey
    from p2p.tls import TlsIdentity

TLS = "/tls/1.0.0"  # p2p.tls.PROTOCOL_ID: that room is imported when somebody speaks it
SECURITY = {"noise": noise.PROTOCOL_ID, "tls": TLS}
MUXERS = (YAMUX,)


class ConnectionUpgrader(Protocol):
    """Makes muxed connections to proven peers out of raw streams."""

    async def upgrade_outbound(self, raw: ByteStream, expected: PeerId | None) -> MuxedConnection:
        """The muxed connection over a stream that we dialed; closes it when that fails.

        Raises `NegotiationFailed`, `RemoteProtocolError` (`AuthenticationFailed` when the peer is not
        `expected`), `ConnectionLost`.
        """

    async def upgrade_inbound(self, raw: ByteStream) -> MuxedConnection:
        """The muxed connection over a stream that we accepted. Raises as `upgrade_outbound`."""


class Upgrader:
    """Secures and muxes the connections of one host; with `psk` they are of a private network.

    The windows of all connections grow out of one budget. `entropy(n)` gives n unpredictable bytes,
    for Noise's keys.
    """

    def __init__(
        self,
        key: KeyPair,
        config: HostConfig,
        rng: random.Random,
        psk: PreSharedKey | None,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._key = key
        self._security = [SECURITY[name] for name in config.security]
        self._budget = WindowBudget(config.window_memory)
        self._rng = rng
        self._entropy = entropy
        self._psk = psk
        self._tls_identity: TlsIdentity | None = None

    async def upgrade_outbound(self, raw: ByteStream, expected: PeerId | None) -> YamuxConnection:
        """As `ConnectionUpgrader.upgrade_outbound`."""
        try:
            stream = await self._protect(raw)
            chosen = await multistream.select(stream, self._security)
            secure = await self._secure_outbound(chosen, stream, expected)
            if secure.early_muxer is None:
                await multistream.select(secure, MUXERS)
            return YamuxConnection(secure, initiator=True, budget=self._budget)
        except BaseException:
            await close_forcefully(raw)
            raise

    async def upgrade_inbound(self, raw: ByteStream) -> YamuxConnection:
        """As `ConnectionUpgrader.upgrade_inbound`."""
        try:
            stream = await self._protect(raw)
            chosen = await multistream.handle(stream, self._security)
            secure = await self._secure_inbound(chosen, stream)
            if secure.early_muxer is None:
                await multistream.handle(secure, MUXERS)
            return YamuxConnection(secure, initiator=False, budget=self._budget)
        except BaseException:
            await close_forcefully(raw)
            raise

    async def _secure_outbound(
        self, chosen: str, stream: ByteStream, expected: PeerId | None
    ) -> SecureStream:
        if chosen == noise.PROTOCOL_ID:
            return await noise.secure_outbound(
                stream, self._key, expected, muxers=MUXERS, entropy=self._entropy
            )
        from p2p import tls

        return await tls.secure_outbound(stream, self._identity(), expected, muxers=MUXERS)

    async def _secure_inbound(self, chosen: str, stream: ByteStream) -> SecureStream:
        if chosen == noise.PROTOCOL_ID:
            return await noise.secure_inbound(stream, self._key, muxers=MUXERS, entropy=self._entropy)
        from p2p import tls

        return await tls.secure_inbound(stream, self._identity(), muxers=MUXERS)

    def _identity(self) -> TlsIdentity:
        """Our TLS certificate, made when it is first needed: OpenSSL's import is not cheap."""
        from p2p.tls import TlsIdentity

        if self._tls_identity is None:
            self._tls_identity = TlsIdentity(self._key)
        return self._tls_identity

    async def _protect(self, raw: ByteStream) -> ByteStream:
        if self._psk is None:
            return raw
        from p2p import pnet

        return await pnet.protect(raw, self._psk, self._rng.randbytes(pnet.NONCE_SIZE))
