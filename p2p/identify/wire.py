"""The identify message: bytes ⇄ values, with everything bounded.

Source: libp2p/specs identify/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from p2p.address import decode_address, decode_addresses
from p2p.errors import InvalidAddress, InvalidKey, RemoteProtocolError
from p2p.identify.identify_pb2 import Identify
from p2p.keys import PublicKey

MAX_MESSAGE = 8192  # bytes of one message that we accept, as go
MAX_SENT = 4096  # bytes that we send: rust refuses more
MAX_MESSAGES = 10  # parts of one split answer, as go
MAX_ADDRESSES = 64  # listen addresses taken from one answer
MAX_PROTOCOLS = 1024
MAX_TEXT = 128  # characters of an agent or protocol version that we keep
PROTOCOL_VERSION = "ipfs/0.1.0"  # what go and js say; nobody checks it


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """What a peer says of itself; an empty field means that it said nothing about it."""

    public_key: PublicKey | None = None
    listen: tuple[Multiaddr, ...] = ()
    protocols: tuple[str, ...] = ()
    observed: Multiaddr | None = None
    agent: str = ""


def encode(info: PeerInfo) -> bytes:
    """The message for `info`, at most 4096 bytes: what does not fit is left out, addresses first."""
    message = Identify(
        publicKey=info.public_key.encode() if info.public_key else None,
        listenAddrs=[address.to_bytes() for address in info.listen],
        protocols=info.protocols,
        observedAddr=info.observed.to_bytes() if info.observed else None,
        protocolVersion=PROTOCOL_VERSION,
        agentVersion=info.agent,
    )
    while message.ByteSize() > MAX_SENT and message.listenAddrs:
        del message.listenAddrs[-1]
    while message.ByteSize() > MAX_SENT and message.protocols:
        del message.protocols[-1]
    return message.SerializeToString()


def decode(parts: Sequence[bytes]) -> PeerInfo:
    """The merged value of the messages of one answer. Raises `RemoteProtocolError`.

    An address that does not decode costs only itself.
    """
    message = Identify()
    try:
        for part in parts:
            message.MergeFromString(part)
    except DecodeError as exc:
        raise RemoteProtocolError("identify message does not decode") from exc
    try:
        key = PublicKey.decode(message.publicKey) if message.publicKey else None
    except InvalidKey as exc:
        raise RemoteProtocolError(f"identify carries a bad key: {exc}") from exc
    try:
        observed = decode_address(message.observedAddr) if message.observedAddr else None
    except InvalidAddress:
        observed = None
    return PeerInfo(
        public_key=key,
        listen=tuple(decode_addresses(list(message.listenAddrs), MAX_ADDRESSES)),
        protocols=tuple(dict.fromkeys(message.protocols[:MAX_PROTOCOLS])),
        observed=observed,
        agent=message.agentVersion[:MAX_TEXT],
    )
