"""Gossipsub 1.2: publish and subscribe over a mesh, with gossip as the safety net."""

from p2p.gossipsub.driver import Pubsub, open_gossipsub
from p2p.gossipsub.events import PubsubMessage, Validator, Verdict
from p2p.gossipsub.params import GossipsubParams, ScoreParams
from p2p.gossipsub.signing import MessageIdFunction, message_id_from_seqno, sha256_message_id
from p2p.gossipsub.subscription import Subscription

__all__ = [
    "GossipsubParams",
    "MessageIdFunction",
    "Pubsub",
    "PubsubMessage",
    "ScoreParams",
    "Subscription",
    "Validator",
    "Verdict",
    "message_id_from_seqno",
    "open_gossipsub",
    "sha256_message_id",
]
