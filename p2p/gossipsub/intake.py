"""The gates that a received message passes, cheapest first; the first that it fails ends it.

    topic joined → not our own → well-formed → not seen → signature → validator → accepted
    └──────────────── screen ─────────────────────────┘   └ verify ┘  └ judge ─┘

An id counts as seen only once a signature proved it: anybody can make up the id of somebody else's
next message. `verify` depends on nothing but the message.
Source: libp2p/specs pubsub/README.md "Message Signing", gossipsub-v1.1.md "Extended Validators".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from p2p.gossipsub.cache import SeenCache
from p2p.gossipsub.events import PubsubMessage, Validator, ValidatorFailed, Verdict
from p2p.gossipsub.signing import MessageIdFunction, Verify, has_valid_form, verify_message
from p2p.gossipsub.wire import Message
from p2p.peer_id import PeerId


@dataclass(slots=True)
class Counters:
    """What became of messages, since the start."""

    published: int = 0
    delivered: int = 0
    duplicates: int = 0
    rejected: int = 0  # malformed, bad signature, or the validator said so
    ignored: int = 0  # the validator said so, or failed


class Useless(Enum):
    """Why a message that is no copy is not worth verifying."""

    OWN = "own"
    MALFORMED = "malformed"  # the fault of whoever sent it


class Intake:
    """Decides on received messages, and counts what became of them."""

    def __init__(
        self,
        own: PeerId,
        seen_ttl: float,
        max_size: int,
        message_id: MessageIdFunction,
        verify: Verify = verify_message,
    ) -> None:
        self.counters = Counters()
        self.validators: dict[str, Validator] = {}
        self.seen = SeenCache(seen_ttl)
        self.message_id = message_id
        self._own = own.raw
        self._max_size = max_size  # bytes of a serialized message
        self._verify = verify

    def screen(self, message: Message, now: float) -> bytes | Useless | None:
        """The id of a message that is worth verifying, else why it is not; None for a copy, as most are."""
        if message.origin == self._own:
            return Useless.OWN
        if len(message.raw) > self._max_size or not has_valid_form(message):
            self.counters.rejected += 1
            return Useless.MALFORMED
        message_id = self.message_id(message)
        if self.seen.contains(message_id, now):
            self.counters.duplicates += 1
            return None
        return message_id

    def verify(self, message: Message, message_id: bytes, received_from: PeerId) -> PubsubMessage | None:
        """The message as an application sees it, if its origin signed it."""
        origin = self._verify(message)
        if origin is None:
            self.counters.rejected += 1
            return None
        return PubsubMessage(
            topic=message.topic,
            data=message.data,
            sender=origin,
            seqno=message.seqno,
            id=message_id,
            received_from=received_from,
        )

    def judge(self, message: PubsubMessage) -> ValidatorFailed | Verdict:
        """What the topic's validator says of the message.

        A validator that fails has found a bug, or a message has found it: one message may not end the
        peer, nor put the blame on whoever passed it on.
        """
        validator = self.validators.get(message.topic)
        if validator is None:
            self.counters.delivered += 1
            return Verdict.ACCEPT
        try:
            verdict = Verdict(validator(message))
        except Exception as error:  # whatever the application's code raises
            self.counters.ignored += 1
            return ValidatorFailed(topic=message.topic, error=error)
        self.counters.delivered += verdict is Verdict.ACCEPT
        self.counters.rejected += verdict is Verdict.REJECT
        self.counters.ignored += verdict is Verdict.IGNORE
        return verdict
