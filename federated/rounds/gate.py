"""The door of a task's topic: what is let in, and so forwarded; everything else ends here.

    over the size limit, not a message, of another task    → REJECT, the fault of whoever hands it on
    by a stranger to a task that nobody joins              → REJECT, the same
    by a stranger to an open task                          → see `federated.rounds.strangers`
    by a peer that left or was ejected                     → IGNORE
    expired, from too far in the future, said before       → IGNORE, nobody's fault

REJECT counts against who handed the message to us. So it is only for what every correct member refuses,
however many of the certificates it has. Whether a peer is a member, members that are a round apart see
differently: who hands on what a new member says, or one that we know to be ejected, does nothing wrong. Only
where such a message comes from its author itself is that one to blame, and a peer that is no member any
more may not know yet: for as long as a message lives nobody is.

Gossip has checked the signature by now. The wall clock only bounds how long a message can be replayed, or
excused; no decision of a round looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from federated.rounds.committee import Membership
from federated.rounds.messages import LIFETIME, Message, MessageError
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
        self._most = _most_seqs(len(members))
        self._seqs: dict[PeerId, dict[int, None]] = {member: {} for member in members}  # oldest first
        self._gone: dict[PeerId, float] = {}  # members that are none any more: since when, in unix seconds

    def turn(self, membership: Membership) -> None:
        """From now on these are the members."""
        active = membership.peers(membership.active)
        self._most = _most_seqs(len(active))
        self._seqs = {member: self._seqs.get(member, {}) for member in active}
        gone, now = [peer for peer in membership.members if peer not in self._seqs], self._wall_clock()
        self._gone = {peer: self._gone.get(peer, now) for peer in gone}

    def judge(self, message: PubsubMessage) -> Verdict:
        """Whether the message counts; to be asked once for each."""
        since = self._gone.get(message.sender)
        if since is not None:
            is_known = self._wall_clock() - since > LIFETIME
            return _blame(message) if is_known else Verdict.IGNORE
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
            verdict = self._strangers.judge(message.sender, content, now)
            return _blame(message) if verdict is Verdict.REJECT else verdict
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


def _blame(message: PubsubMessage) -> Verdict:
    """What is wrong with the message is its author's fault, and not that of who hands it on."""
    return Verdict.REJECT if message.received_from == message.sender else Verdict.IGNORE


def _most_seqs(members: int) -> int:
    """How many sequence numbers are remembered of each of so many members."""
    return min(MAX_SEQS, max(MIN_SEQS, ALL_SEQS // max(1, members)))
