"""What a host tells whoever listens: peers that come, go, and say what they speak."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected:
    """The first connection to `peer` is open."""

    peer: PeerId
    outbound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentified:
    """`peer` said (again) which protocols it speaks; its addresses are in the peerstore."""

    peer: PeerId
    protocols: tuple[str, ...]
    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDisconnected:
    """The last connection to `peer` is gone."""

    peer: PeerId


HostEvent = PeerConnected | PeerIdentified | PeerDisconnected
