"""Made-up peers for the tests of Kademlia."""

from __future__ import annotations

import hashlib

from multiaddr import Multiaddr

from p2p.address import parse_address
from p2p.kad.distance import position
from p2p.kad.wire import PeerEntry
from p2p.peer_id import PeerId


def peer(number: int) -> PeerId:
    """Peer `number`, the same in every run; its position in the key space is as good as random."""
    return PeerId(b"\x12\x20" + hashlib.sha256(number.to_bytes(8, "big")).digest())


def address(number: int) -> Multiaddr:
    """An address of peer `number`."""
    return parse_address(f"/ip4/10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/tcp/4001")


def entry(number: int, addresses: int = 1) -> PeerEntry:
    """Peer `number` as a message names it."""
    return PeerEntry(
        peer=peer(number), addresses=tuple(address(number + (i << 16)) for i in range(addresses))
    )


def by_distance(peers: list[PeerId], key: bytes) -> list[PeerId]:
    """`peers`, those closest to `key` first."""
    return sorted(peers, key=lambda one: position(one.raw) ^ position(key))
