"""Gossipsub's parameters. Defaults are go-libp2p-pubsub's and rust-libp2p's, which agree where not noted.

Sources: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md "Parameters", gossipsub-v1.1.md "Overview of New
Parameters", gossipsub-v1.2.md; go-libp2p-pubsub gossipsub.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2p.errors import InvalidInput
from p2p.gossipsub.wire import MAX_RPC


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipsubParams:
    """How many peers, how often, how long. Raises `InvalidInput` when the figures contradict one another."""

    mesh_size: int = 6  # peers of one topic's mesh to aim for; "D"
    mesh_low: int = 5  # below it peers are added; "D_low", 4 in the specification
    mesh_high: int = 12  # above it peers are pruned; "D_high"
    mesh_outbound: int = 2  # mesh peers that we dialed ourselves: an eclipse cannot take these; "D_out"
    flood_publish: bool = True  # own messages go to all peers of the topic; specification v1.1, rust, js
    fanout_ttl: float = 60.0  # seconds that peers for a topic we only publish to are kept

    heartbeat_interval: float = 1.0  # seconds
    heartbeat_delay: float = 0.1  # seconds before the first one; go, js
    history_length: int = 5  # heartbeats that a message can be asked for
    history_gossip: int = 3  # heartbeats that it is advertised
    seen_ttl: float = 120.0  # seconds that an id is known as seen; go, js (rust 60)

    gossip_size: int = 6  # peers, at least, that get IHAVE in a heartbeat; "D_lazy"
    gossip_factor: float = 0.25  # share of the peers outside the mesh that get it, if that is more
    max_ihave_messages: int = 10  # RPCs with IHAVE heeded from a peer in a heartbeat
    max_ihave_ids: int = 5000  # ids asked of a peer, and answered to it, in a heartbeat
    iwant_followup: float = 3.0  # seconds a peer has to send what it advertised
    retransmissions: int = 3  # times one peer gets the same message by IWANT

    prune_backoff: float = 60.0  # seconds before a pruned peer may come back
    unsubscribe_backoff: float = 10.0  # seconds, after we left a topic
    max_backoff: float = 3600.0  # seconds; longer ones that a peer sends count as this (CVE-2026-33040)
    backoff_slack: float = 2.0  # seconds that we wait longer than agreed before we graft; go: 2 heartbeats

    idontwant_size: int = 1024  # bytes from which a message is announced as not wanted twice; go
    idontwant_ids: int = 512  # ids heeded from a peer in a heartbeat; js
    idontwant_ttl: float = 3.0  # seconds that they are heeded; go: 3 heartbeats

    max_message_size: int = MAX_RPC - 64  # bytes of a serialized message: its RPC is within everybody's cap

    def __post_init__(self) -> None:
        if not 0 < self.mesh_low <= self.mesh_size <= self.mesh_high:
            raise InvalidInput("mesh sizes must obey 0 < mesh_low <= mesh_size <= mesh_high")
        if not 0 <= self.mesh_outbound < self.mesh_low or self.mesh_outbound > self.mesh_size // 2:
            raise InvalidInput("mesh_outbound must be below mesh_low and at most half of mesh_size")
        if not 0 < self.history_gossip <= self.history_length:
            raise InvalidInput("history must obey 0 < history_gossip <= history_length")
        if self.heartbeat_interval <= 0 or not 0 < self.max_message_size <= MAX_RPC - 64:
            raise InvalidInput("heartbeat_interval must be positive, max_message_size within an RPC")
