"""The certificates that led here, for members that are behind, and whose turn it is to send them.

Where each round has a committee of its own, a certificate can be checked only by whoever has the one
before it: its committee is drawn by that one's model. So a member that is several rounds behind is
sent all those in between, a few at a time, and needs the model of the last one only.

Everybody has them, and one answer is enough. The members answer in the order of their numbers, from
the one after the sender on, each a little later than the one before; whoever hears an answer keeps
still. In the same way the voters of a round see to it that its certificate is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from federated.rounds.committee import Electorate
from federated.rounds.messages import Certificate

HISTORY = 1024  # certificates kept, of some 3 KiB each; a member further behind has to begin anew
BATCH = 8  # certificates in one answer
STEP = 0.25  # seconds that each member leaves to the one before it; more than a message takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What one more certificate came to.

    `accepted` are those that count now, one after the other. `refused` has (sender, certificate, rule).
    `is_ahead` is set when one builds on others that we do not have.
    """

    accepted: tuple[Certificate, ...] = ()
    refused: tuple[tuple[int, Certificate, str], ...] = ()
    is_ahead: bool = False


class Links:
    """Checks certificates by the committees of `electorate`, each of which hangs on the one before.

    A few that come before those that they build on are kept until their turn, one a round: the last.
    """

    def __init__(self, electorate: Electorate) -> None:
        self._electorate = electorate
        self._waiting: dict[int, tuple[int, Certificate]] = {}  # by round: the sender and what it sent

    def follow(self, sender: int, certificate: Certificate, reached: int, base: bytes) -> Followed:
        """Member number `sender` sent `certificate`; round `reached` is certified, with the digest `base`."""
        if certificate.round <= reached:
            return Followed()
        if (
            not self._electorate.is_drawn
        ):  # all members vote in all rounds: each certificate stands for itself
            rule = self._fault(certificate, certificate.block.base)
            if rule is not None:
                return Followed(refused=((sender, certificate, rule),))
            return Followed(accepted=(certificate,))
        self._waiting = {number: item for number, item in self._waiting.items() if number > reached}
        if certificate.round > reached + BATCH:
            return Followed(is_ahead=True)
        self._waiting[certificate.round] = (sender, certificate)
        linked: list[Certificate] = []
        while (item := self._waiting.pop(reached + 1, None)) is not None:
            rule = self._fault(item[1], base)
            if rule is not None:
                return Followed(accepted=tuple(linked), refused=((*item, rule),))
            linked.append(item[1])
            reached, base = item[1].round, item[1].block.model.digest
        return Followed(accepted=tuple(linked), is_ahead=bool(self._waiting))

    def _fault(self, certificate: Certificate, base: bytes) -> str | None:
        """The rule that the certificate of the next round breaks."""
        if certificate.block.base != base:
            return "past"
        committee = self._electorate.panel(certificate.round, base).committee
        return None if committee.accepts_certificate(certificate) else "signature"


class Archive:
    """The newest certificates of a task with `size` members, for member number `me`.

    `gap` is the time in seconds for which a certificate that was sent by anybody is not sent again.
    """

    def __init__(self, size: int, me: int, gap: float) -> None:
        self._size = size
        self._me = me
        self._gap = gap
        self._certificates: dict[int, Certificate] = {}  # by round, oldest first
        self._sent: dict[int, float] = {}  # by round: when somebody sent the certificate last
        self._due: dict[int, float] = {}  # by round: when it is our turn to send

    def keep(self, certificate: Certificate) -> None:
        """Keeps the certificate of the round after the last one."""
        self._certificates[certificate.round] = certificate
        if len(self._certificates) > HISTORY:
            oldest = next(iter(self._certificates))
            del self._certificates[oldest]
            self._sent.pop(oldest, None)
            self._due.pop(oldest, None)

    def certificate(self, round_number: int) -> Certificate | None:
        """The certificate of a round, None when it is not kept."""
        return self._certificates.get(round_number)

    def heard(self, round_number: int, now: float) -> None:
        """Somebody sent the true certificate of this round."""
        self._sent[round_number] = now
        self._due.pop(round_number, None)

    def ask(self, member: int, round_number: int, now: float) -> None:
        """Member number `member` is in a round that we have a certificate of."""
        self.plan(round_number, (self._me - member) % self._size - 1, now)

    def plan(self, round_number: int, turn: int, now: float) -> None:
        """We send the certificate of the round after `turn` others had time to, unless one of them does."""
        if round_number in self._certificates and now >= self._sent.get(round_number, -inf) + self._gap:
            due = now + turn * STEP
            self._due[round_number] = min(due, self._due.get(round_number, inf))

    def next_deadline(self) -> float:
        """When `take_due` has something."""
        return min(self._due.values(), default=inf)

    def take_due(self, now: float) -> list[Certificate]:
        """What we are to send now: for each round whose turn it is, its certificate and those after it."""
        found: dict[int, Certificate] = {}
        for first in sorted(number for number, due in self._due.items() if now >= due):
            for number in range(first, first + BATCH):
                recent = number > first and now < self._sent.get(number, -inf) + self._gap
                if number in self._certificates and not recent:
                    found[number] = self._certificates[number]
        for number in found:
            self.heard(number, now)
        return [found[number] for number in sorted(found)]
