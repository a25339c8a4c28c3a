"""What this member sends to those that are behind, and whose turn it is to do so.

Who is ahead answers any message of an older round with its certificate and those after it. One answer is
enough for everybody: the members that are there have their turns one after the other, and whoever hears
an answer keeps still (`federated.rounds.archive`). A new certificate is published in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable

from federated.rounds.actions import Publish
from federated.rounds.archive import Archive
from federated.rounds.chain import Links
from federated.rounds.messages import Certificate
from federated.rounds.roster import Seat
from p2p.peer_id import PeerId

ANSWER_GAP = 1.0  # seconds between two certificates sent to members that are behind


class Answers:
    """The certificates of the chain `links`, as far as they are at hand, and when we send them.

    The `seat` of each call is ours as it is then.
    """

    def __init__(self, *, links: Links, seat: Seat) -> None:
        self._links = links
        self._archive = Archive(seat.period if seat.is_drawn else ANSWER_GAP)
        self._answered_at = float("-inf")

    def keep(self, certificates: Iterable[Certificate]) -> None:
        """These are the next certificates of the chain."""
        for certificate in certificates:
            self._archive.keep(certificate)

    def newest(self, round_number: int) -> tuple[Certificate, tuple[PeerId, ...]] | None:
        """The certificate of a round, and who voted on it, as far as we remember."""
        certificate = self._archive.certificate(round_number)
        if certificate is None:
            return None
        panel = self._links.panel_of(certificate)
        return certificate, () if panel is None else panel.committee.members

    def next_deadline(self) -> float:
        """When `take_due` has something."""
        return self._archive.next_deadline()

    def take_due(self, now: float) -> list[Publish]:
        """What it is our turn to send."""
        return [Publish(body=body) for body in self._archive.take_due(now)]

    def rest(self, now: float) -> None:
        """A round is over: votes still under way are no sign that their sender is behind."""
        self._answered_at = now

    def heard(self, certificate: Certificate, now: float) -> None:
        """Somebody sent a certificate that has been checked."""
        self._archive.heard(certificate.round, now)

    def hear_again(self, certificate: Certificate, now: float) -> None:
        """Somebody sent a certificate that we have: we need not, unless it is a false one."""
        known = self._archive.certificate(certificate.round)
        if known is None or known.block != certificate.block:
            return
        panel = self._links.panel_of(known)
        if known == certificate or (panel is not None and panel.committee.accepts_certificate(certificate)):
            self._archive.heard(known.round, now)

    def answer(self, member: int, round_number: int, done: int, seat: Seat, now: float) -> list[Publish]:
        """To member number `member`, which is in a round up to `done`, the last one that is over."""
        if round_number == done and now < self._answered_at + seat.period:
            return []
        self._archive.plan(round_number, _turn(member, seat, now), now)
        return self.take_due(now)

    def spread(self, certificate: Certificate, seat: Seat, now: float) -> list[Publish]:
        """Sees to it that a new certificate is published, once: the first signer does it.

        It spares the others to ask for it. The next signers make up for one that is gone.
        """
        panel = self._links.panel_of(certificate)
        voter = None if panel is None else panel.seat(seat.me)
        if voter is None:
            return []
        signers = [signer for signer, _ in certificate.votes]
        turn = signers.index(voter) if voter in signers else len(signers)
        self._archive.plan(certificate.round, turn, now)
        return self.take_due(now)


def _turn(member: int, seat: Seat, now: float) -> int:
    """How many members answer member number `member` before we do.

    Where there are many, also those that we do not know to be there: else all would answer at once.
    """
    me, everybody = seat.me, seat.membership.active
    before = (1 << me) - 1
    behind = ~((2 << member) - 1)
    between = before & behind if member < me else before | behind
    answering = everybody if seat.is_drawn else everybody & seat.roster.live(now)
    return (answering & between).bit_count()
