"""Raw → secured → muxed: what happens to every connection before its first stream.

The caller sets one deadline over all of it. A failure closes the raw stream.
Source: libp2p/specs connections/README.md, "Upgrading connections".
"""

from __future__ import annotations

from p2p import multistream, noise
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.scope import close_forcefully
from p2p.stream import ByteStream
from p2p.yamux import YamuxConnection

NOISE = "/noise"
YAMUX = "/yamux/1.0.0"


async def upgrade_outbound(raw: ByteStream, key: KeyPair, expected: PeerId | None) -> YamuxConnection:
    """The muxed connection over a stream that we dialed.

    Raises `NegotiationFailed`, `RemoteProtocolError` (`AuthenticationFailed` when the peer is not
    `expected`), `ConnectionLost`.
    """
    try:
        await multistream.select(raw, [NOISE])
        secure = await noise.secure_outbound(raw, key, expected)
        await multistream.select(secure, [YAMUX])
        return YamuxConnection(secure, initiator=True)
    except BaseException:
        await close_forcefully(raw)
        raise


async def upgrade_inbound(raw: ByteStream, key: KeyPair) -> YamuxConnection:
    """The muxed connection over a stream that we accepted. Raises as `upgrade_outbound`."""
    try:
        await multistream.handle(raw, (NOISE,))
        secure = await noise.secure_inbound(raw, key)
        await multistream.handle(secure, (YAMUX,))
        return YamuxConnection(secure, initiator=False)
    except BaseException:
        await close_forcefully(raw)
        raise
