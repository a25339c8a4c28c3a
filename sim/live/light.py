"""Connections of the rung `light`: identities are proven, nothing is encrypted.

    initiator                                responder
    nonce, public key ──────────────────→
                      ←──────────────────   nonce, public key, signature
    signature         ──────────────────→

Each signs both nonces and its role, so a connection costs the round trips of Noise XX and its two
signatures, and what follows costs neither a cipher nor the bytes of a multiplexer: see `mux`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2p.errors import AuthenticationFailed, ConnectionLost, InvalidKey
from p2p.keys import KeyPair, PublicKey
from p2p.peer_id import PeerId
from p2p.scope import close_forcefully
from sim.heap import EventHeap, SimulationError
from sim.live.fabric import Endpoint
from sim.live.mux import PlainConnection

if TYPE_CHECKING:
    from p2p.stream import ByteStream

PREFIX = b"atcp-sim-light:"
NONCE, KEY, SIGNATURE = 32, 36, 64  # bytes; keys of simulated nodes are Ed25519
HELLO = NONCE + KEY


class LightUpgrader:
    """A `ConnectionUpgrader` that proves identities and encrypts nothing. `entropy(n)` gives n bytes."""

    def __init__(self, key: KeyPair, heap: EventHeap, entropy: Callable[[int], bytes]) -> None:
        self._key = key
        self._heap = heap
        self._entropy = entropy

    async def upgrade_outbound(self, raw: ByteStream, expected: PeerId | None) -> PlainConnection:
        """As `ConnectionUpgrader.upgrade_outbound`."""
        try:
            hello = self._hello()
            await raw.send_all(hello)
            answer = await _receive_exactly(raw, HELLO + SIGNATURE)
            key = _verify(answer[HELLO:], b"responder", hello + answer[:HELLO], answer[NONCE:HELLO])
            peer = PeerId.from_public_key(key)
            if expected is not None and peer != expected:
                raise AuthenticationFailed(f"reached {peer} instead of {expected}")
            await raw.send_all(self._key.sign(PREFIX + b"initiator" + hello + answer[:HELLO]))
            return self._mux(raw, key, initiator=True)
        except BaseException:
            await close_forcefully(raw)
            raise

    async def upgrade_inbound(self, raw: ByteStream) -> PlainConnection:
        """As `ConnectionUpgrader.upgrade_inbound`."""
        try:
            theirs, ours = await _receive_exactly(raw, HELLO), self._hello()
            await raw.send_all(ours + self._key.sign(PREFIX + b"responder" + theirs + ours))
            signature = await _receive_exactly(raw, SIGNATURE)
            key = _verify(signature, b"initiator", theirs + ours, theirs[NONCE:])
            return self._mux(raw, key, initiator=False)
        except BaseException:
            await close_forcefully(raw)
            raise

    def _hello(self) -> bytes:
        return self._entropy(NONCE) + self._key.public.encode()

    def _mux(self, raw: ByteStream, key: PublicKey, *, initiator: bool) -> PlainConnection:
        if not isinstance(raw, Endpoint):
            raise SimulationError("the rung light works over simulated connections only")
        return PlainConnection(raw, self._heap, key, initiator=initiator)


def _verify(signature: bytes, role: bytes, hellos: bytes, encoded_key: bytes) -> PublicKey:
    """The key that is proven. Raises `AuthenticationFailed`."""
    try:
        key = PublicKey.decode(encoded_key)
    except InvalidKey as exc:
        raise AuthenticationFailed(f"the peer's identity key cannot be used: {exc}") from exc
    if not key.verify(PREFIX + role + hellos, signature):
        raise AuthenticationFailed("the peer did not sign this connection")
    return key


async def _receive_exactly(raw: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await raw.receive_some(size - len(data))
        if not piece:
            raise ConnectionLost("the peer closed the connection within the handshake")
        data += piece
    return data
