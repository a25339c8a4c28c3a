"""Gossipsub's parameters. Defaults are go-libp2p-pubsub's and rust-libp2p's, which agree where not noted.

Sources: libp2p/specs pubsub/gossipsub/gossipsub-v1.0.md "Parameters", gossipsub-v1.1.md "Overview of New
Parameters", gossipsub-v1.2.md; go-libp2p-pubsub gossipsub.go, score_params.go.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from p2p.errors import InvalidInput
from p2p.gossipsub.wire import MAX_RPC


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParams:
    """What peers gain and lose by what they do, and what follows: right for topics quiet or busy.

    Decays are factors a second. Raises `InvalidInput` when the figures contradict one another: whatever
    credit a peer has, withholding in one topic takes more, and by itself never shuts it out.
    Sources: gossipsub-v1.1.md "Peer Scoring"; thresholds and colocation as rust-libp2p and js-libp2p.
    """

    gossip_threshold: float = -10.0  # below it nothing is advertised to a peer, nor heeded from it
    publish_threshold: float = -50.0  # below it a peer does not get what we publish
    graylist_threshold: float = -80.0  # below it nothing is heard from a peer
    accept_px_threshold: float = 10.0  # from it on peers are taken that a peer names: above all credit
    opportunistic_threshold: float = 1.0  # a mesh whose median is below gets better peers

    credit_cap: float = 4.0  # of all topics together
    mesh_weight: float = 0.01  # P1, a second in a mesh: settles who stays, and no more
    mesh_cap: float = 50.0  # seconds
    first_weight: float = 0.5  # P2, a message that a peer brought first
    first_decay: float = 0.98  # half is gone in 34 seconds: one message in a minute keeps some
    first_cap: float = 5.0  # messages

    shortfall_weight: float = -5.0  # P3, of a mesh peer that withholds all, where the rate is known
    failure_weight: float = -4.0  # P3b, of one that was pruned while it did
    failure_decay: float = 0.99
    delivery_share: float = 0.1  # of a topic's messages that each mesh peer should bring
    delivery_decay: float = 0.9  # messages of the last ten seconds count
    delivery_least: float = 2.0  # messages owed: below it chance decides
    delivery_window: float = 2.0  # seconds behind the first copy; Ethereum, since links differ
    delivery_activation: float = 5.0  # seconds in the mesh before it is judged

    invalid_weight: float = -1.0  # P4, squared: ten messages in a row graylist
    invalid_decay: float = 0.99
    application_weight: float = 1.0  # P5
    colocation_weight: float = -5.0  # P6, squared
    colocation_threshold: int = 8  # peers with one public IP; as many inbound connections it may have
    penalty_weight: float = -10.0  # P7, squared
    penalty_threshold: float = 2.0  # of the counter: a broken promise now and then is no attack
    penalty_decay: float = 0.98

    decay_to_zero: float = 0.01
    retention: float = 3600.0  # seconds that a penalty is remembered of who is away; rust, js

    def __post_init__(self) -> None:
        if not self.graylist_threshold <= self.publish_threshold <= self.gossip_threshold <= 0:
            raise InvalidInput("score thresholds must obey graylist <= publish <= gossip <= 0")
        if min(self.accept_px_threshold, self.opportunistic_threshold) < 0:
            raise InvalidInput("accept_px_threshold and opportunistic_threshold must not be negative")
        for field in fields(self):
            if field.name.endswith("_decay") and not 0 < getattr(self, field.name) < 1:
                raise InvalidInput(f"{field.name} must be between 0 and 1")
        good = (self.mesh_weight, self.first_weight, self.application_weight)
        bad = (self.shortfall_weight, self.failure_weight, self.invalid_weight)
        if min(good) < 0 or max(*bad, self.colocation_weight, self.penalty_weight) > 0:
            raise InvalidInput("weights of P1, P2 and P5 must not be negative, the others not positive")
        if not 0 <= self.credit_cap < -self.shortfall_weight:
            raise InvalidInput("credit_cap must be less than what withholding in one topic costs")
        if self.shortfall_weight + self.failure_weight < self.gossip_threshold:
            raise InvalidInput("withholding in one topic must leave a peer above the gossip threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipsubParams:
    """How many peers, how often, how long. Raises `InvalidInput` when the figures contradict one another."""

    mesh_size: int = 6  # peers of one topic's mesh to aim for; "D"
    mesh_low: int = 5  # below it peers are added; "D_low", 4 in the specification
    mesh_high: int = 12  # above it peers are pruned; "D_high"
    mesh_outbound: int = 2  # mesh peers that we dialed ourselves: an eclipse cannot take these; "D_out"
    mesh_best: int = (
        4  # peers that stay for their score when some are pruned, the others by chance; "D_score"
    )
    opportunistic_every: int = 60  # heartbeats between two looks at whether the mesh is any good
    opportunistic_grafts: int = 2  # better peers that it gets then
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
    graft_grace: float = 2.0  # seconds behind a prune in which a GRAFT may have been on its way already
    graft_flood: float = 10.0  # seconds behind a prune in which a GRAFT counts twice; go, rust, js
    unsubscribe_backoff: float = 10.0  # seconds, after we left a topic
    max_backoff: float = 3600.0  # seconds; longer ones that a peer sends count as this (CVE-2026-33040)
    backoff_slack: float = 2.0  # seconds that we wait longer than agreed before we graft; go: 2 heartbeats

    idontwant_size: int = 1024  # bytes from which a message is announced as not wanted twice; go
    idontwant_ids: int = 512  # ids heeded from a peer in a heartbeat; js
    idontwant_ttl: float = 3.0  # seconds that they are heeded; go: 3 heartbeats

    max_message_size: int = MAX_RPC - 64  # bytes of a serialized message: its RPC is within everybody's cap
    score: ScoreParams = ScoreParams()

    def __post_init__(self) -> None:
        if not 0 < self.mesh_low <= self.mesh_size <= self.mesh_high:
            raise InvalidInput("mesh sizes must obey 0 < mesh_low <= mesh_size <= mesh_high")
        if not 0 <= self.mesh_outbound < self.mesh_low or self.mesh_outbound > self.mesh_size // 2:
            raise InvalidInput("mesh_outbound must be below mesh_low and at most half of mesh_size")
        if not 0 <= self.mesh_best <= self.mesh_size - self.mesh_outbound:
            raise InvalidInput("mesh_best must leave room for mesh_outbound within mesh_size")
        if not 0 < self.history_gossip <= self.history_length:
            raise InvalidInput("history must obey 0 < history_gossip <= history_length")
        if self.heartbeat_interval <= 0 or not 0 < self.max_message_size <= MAX_RPC - 64:
            raise InvalidInput("heartbeat_interval must be positive, max_message_size within an RPC")
