"""What the topic of a task lets in of peers that are no members: of an open task joins, and nothing else.

    another message                       → IGNORE: the sender may have been admitted while we looked away
    a join, too soon after another one    → IGNORE, before anything is computed
    a join by a credential that is none   → REJECT, the sender's fault, if it comes from the sender itself
    a join                                → ACCEPT: whether it is too late, or the task full, its leaders say

Too soon is counted for each sender, and for each invitation: the bearer of one can make up as many senders
as it likes. With work every sender costs its own.
"""

from __future__ import annotations

from federated.rounds.admission import Admissions
from federated.rounds.messages import Join, Message
from p2p.gossipsub.events import Verdict
from p2p.peer_id import PeerId

MIN_GAP = 0.5  # seconds between two joins; an applicant leaves at least one
MAX_HEARD = 1024  # senders, and as many invitations, that are remembered; the oldest are forgotten


class Strangers:
    """Judges the messages of peers that are no members, by the rules of `admissions`."""

    def __init__(self, admissions: Admissions) -> None:
        self._admissions = admissions
        self._senders = Recent()
        self._proofs = Recent()

    def judge(self, sender: PeerId, message: Message, now: float) -> Verdict:
        """Whether a fresh message of the task counts; `now` is any clock in seconds, always the same."""
        if not isinstance(message.body, Join):
            return Verdict.IGNORE
        credential = message.body.credential
        if self._senders.is_too_soon(sender.raw, now):
            return Verdict.IGNORE
        if self._admissions.check(credential, sender) is not None:
            return Verdict.REJECT
        if self._proofs.is_too_soon(self._admissions.proof_of(credential), now):
            return Verdict.IGNORE
        return Verdict.ACCEPT


class Recent:
    """When each of the last few keys came."""

    def __init__(self) -> None:
        self._heard: dict[bytes, float] = {}  # oldest first

    def is_too_soon(self, key: bytes, now: float) -> bool:
        """Whether `key` came less than `MIN_GAP` seconds ago; if not it does now."""
        before = self._heard.pop(key, None)
        too_soon = before is not None and 0 <= now - before < MIN_GAP  # a clock that was set back is no bar
        self._heard[key] = before if too_soon and before is not None else now
        if len(self._heard) > MAX_HEARD:
            del self._heard[next(iter(self._heard))]
        return too_soon
