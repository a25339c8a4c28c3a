"""The identify message: bytes ⇄ values, with everything bounded.

Source: libp2p/specs identify/README.md; field 8 and the split as go-libp2p p2p/protocol/identify sends them.
"""

from __future__ import annotations

import sys
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
SPLIT_ABOVE = 2048  # bytes; a larger message travels without its record, which follows alone, as from go
MAX_MESSAGES = 10  # parts of one split answer, as go
MAX_ADDRESSES = 64  # listen addresses taken from one answer
MAX_PROTOCOLS = 1024
MAX_TEXT = 128  # characters of an agent or protocol version that we keep
PROTOCOL_VERSION = "ipfs/0.1.0"  # what go and js say; nobody checks it


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """What a peer says of itself; an empty field means that it said nothing about it.

    `record` is an envelope as it came: `trust.check_record` says whether to believe it.
    """

    public_key: PublicKey | None = None
    listen: tuple[Multiaddr, ...] = ()
    protocols: tuple[str, ...] = ()
    observed: Multiaddr | None = None
    agent: str = ""
    record: bytes | None = None


def encode(info: PeerInfo) -> list[bytes]:
    """The messages for `info`, one or two of at most 4096 bytes.

    What does not fit is left out: addresses first, then protocols; a record is sent whole or not.
    """
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
    first = message.SerializeToString()
    second = Identify(signedPeerRecord=info.record).SerializeToString()
    if not second or len(second) > MAX_SENT:
        return [first]
    if len(first) + len(second) > SPLIT_ABOVE:
        return [first, second]
    return [first + second]  # protobuf: behind one another is merged


def with_observed(message: bytes, observed: Multiaddr) -> bytes:
    """An encoded `message` that also says as what we see the receiver, if there is room for that."""
    longer = message + Identify(observedAddr=observed.to_bytes()).SerializeToString()
    return longer if len(longer) <= MAX_SENT else message


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
        listen=tuple(decode_addresses(list(message.listenAddrs[:MAX_ADDRESSES]), MAX_ADDRESSES)),
        protocols=tuple(dict.fromkeys(map(sys.intern, message.protocols[:MAX_PROTOCOLS]))),  # of all peers
        observed=observed,
        agent=message.agentVersion[:MAX_TEXT],
        record=message.signedPeerRecord or None,
    )
