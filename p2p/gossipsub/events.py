"""What goes into the router and what comes out of it, and the values that applications see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from p2p.gossipsub.wire import Rpc, Version
from p2p.peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PubsubMessage:
    """A message whose signature was verified. `sender` signed it; `received_from` handed it to us."""

    topic: str
    data: bytes
    sender: PeerId
    seqno: bytes
    id: bytes
    received_from: PeerId


class Verdict(Enum):
    """What a validator says of a message."""

    ACCEPT = "accept"  # deliver and forward
    REJECT = "reject"  # drop: it breaks the topic's rules
    IGNORE = "ignore"  # drop: useless, and nobody's fault


Validator = Callable[[PubsubMessage], Verdict]


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """Our outbound stream to `peer` is open; `outbound` tells whether we dialed the connection.

    `address` is the IP at its other end, if it has one.
    """

    peer: PeerId
    version: Version
    outbound: bool
    address: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLost:
    """Our outbound stream to `peer` failed; the peer is still connected."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundOpened:
    """`peer` opened a stream to us; it will say anew what it subscribes to."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGone:
    """The connection to `peer` ended."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcReceived:
    """`peer` sent `rpc`."""

    peer: PeerId
    rpc: Rpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """We subscribe to `topic`."""

    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """We no longer subscribe to `topic`."""

    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """We publish `data`."""

    topic: str
    data: bytes


Event = StreamOpened | StreamLost | InboundOpened | PeerGone | RpcReceived | Join | Leave | Publish


# Actions


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRpc:
    """Queue `rpc` on our stream to `peer`."""

    peer: PeerId
    rpc: Rpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Hand `message` to the local subscribers of its topic."""

    message: PubsubMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The message of the `Publish` that was handled has this id."""

    id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduced:
    """A trusted peer named others: signed peer records, unchecked, of whom we may connect to."""

    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorFailed:
    """The validator of `topic` raised `error`; the message was ignored."""

    topic: str
    error: Exception


Action = SendRpc | Deliver | Published | Introduced | ValidatorFailed
