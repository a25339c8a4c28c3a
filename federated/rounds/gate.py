"""The door of a task's topic: what is let in, and so forwarded; everything else ends here.

    over the size limit, not a message, of another task, by a stranger   → REJECT, the sender's fault
    by a stranger, of an open task                                       → see `federated.rounds.strangers`
    by a peer that left or was ejected, from itself                      → REJECT, handed on by others IGNORE
    expired, from too far in the future, said before                     → IGNORE, nobody's fault

Gossip has checked the signature by now. Expiry is the one use of the wall clock: it only bounds how
long a message can be replayed, no decision of a round looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from federated.rounds.committee import Membership
from federated.rounds.messages import Message, MessageError
from federated.rounds.strangers import Strangers
from federated.rounds.wire import decode
from p2p.gossipsub.events import PubsubMessage, Verdict
from p2p.peer_id import PeerId

MAX_SEQS = 1024  # sequence numbers remembered of each member; ten a second over a message's lifetime
MIN_SEQS = 64  # of many members fewer are: those say a few things a round
ALL_SEQS = 1 << 16  # remembered in all; some 6 MB


class Gate:
    """Judges the messages of one task's topic; `wall_clock` gives unix seconds.

    What peers that are no members say is for `strangers` to judge; without it they are not heard.
    """

    def __init__(
        self,
        *,
        task: bytes,
        members: Sequence[PeerId],
        wall_clock: Callable[[], float],
        strangers: Strangers | None = None,
    ) -> None:
        self._task = task
        self._strangers = strangers
        self._wall_clock = wall_clock
        self._most = min(MAX_SEQS, max(MIN_SEQS, ALL_SEQS // max(1, len(members))))  # of one member
        self._seqs: dict[PeerId, dict[int, None]] = {member: {} for member in members}  # oldest first
        self._gone: dict[PeerId, None] = {}  # members that are none any more

    def turn(self, membership: Membership) -> None:
        """From now on these are the members."""
        active = membership.peers(membership.active)
        self._seqs = {member: self._seqs.get(member, {}) for member in active}
        self._gone = {peer: None for peer in membership.members if peer not in self._seqs}

    def judge(self, message: PubsubMessage) -> Verdict:
        """Whether the message counts; to be asked once for each."""
        if message.sender in self._gone:  # others may not know yet when they hand it on
            return Verdict.REJECT if message.received_from == message.sender else Verdict.IGNORE
        seqs = self._seqs.get(message.sender)
        if seqs is None and self._strangers is None:
            return Verdict.REJECT
        try:
            content = self._read(message)
        except MessageError:
            return Verdict.REJECT
        now = self._wall_clock()
        if not content.is_fresh(now):
            return Verdict.IGNORE
        if seqs is None:
            assert self._strangers is not None
            return self._strangers.judge(message.sender, content, now)
        if content.seq in seqs:
            return Verdict.IGNORE
        seqs[content.seq] = None
        if len(seqs) > self._most:
            del seqs[next(iter(seqs))]
        return Verdict.ACCEPT

    def _read(self, message: PubsubMessage) -> Message:
        content = decode(message.data)
        if content.task != self._task:
            raise MessageError("of another task")
        return content
