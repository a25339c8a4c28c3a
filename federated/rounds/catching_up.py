"""The way to the others for a member that is behind: certificates out of somebody's history, then a model.

Over gossip come a few certificates at a time, in answer to what we say (`federated.rounds.answering`). Who
hears of a round that is further ahead than one such answer leads asks a holder for what is in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from federated.rounds.actions import Adopt, FetchHistory
from federated.rounds.chain import BATCH, Links
from federated.rounds.committee import numbers_in, set_of
from federated.rounds.messages import Certificate
from federated.rounds.roster import Seat
from p2p.peer_id import PeerId

MAX_HOLDERS = 64  # members asked for a model
FETCHED = 64  # certificates asked for at once


class CatchUp:
    """What is fetched of the chain `links` in a task of `rounds` rounds, and from whom.

    The `seat` of each call is ours as it is then.
    """

    def __init__(self, *, links: Links, rounds: int) -> None:
        self._links = links
        self._rounds = rounds
        self._fetching = False
        self._top = 0  # the last round that somebody says is certified
        self._fetch_at = 0.0  # when they may be asked for again

    def hear_of(self, number: int, top: int, seat: Seat, now: float) -> list[FetchHistory]:
        """Member number `number` says that round `top` is certified: fetches the way there, if it is long."""
        first = self._links.head.round + 1
        if self._fetching or now < self._fetch_at or top < first + BATCH:
            return []
        self._fetching, self._top = True, min(top, self._rounds)
        live = seat.roster.live(now) & ~(1 << seat.me | 1 << number)
        peers = seat.membership.members
        holders = (peers[number], *(peers[other] for other in numbers_in(live)))[:MAX_HOLDERS]
        count = min(FETCHED, self._top - first + 1)
        return [FetchHistory(first=first, count=count, holders=holders)]

    def look(self, seat: Seat, now: float) -> list[FetchHistory]:
        """Nobody has the model of the last certificate that we know: asks whether there are later ones."""
        first = self._links.head.round + 1
        if self._fetching or now < self._fetch_at or first > self._rounds:
            return []
        self._fetching, self._top = True, self._rounds
        count = min(FETCHED, self._rounds - first + 1)
        holders = _peers(self._others(seat.roster.live(now), 0, seat), seat)
        return [FetchHistory(first=first, count=count, holders=holders)]

    def end(self) -> None:
        """What was asked for has come, or nobody had it."""
        self._fetching = False

    def pause(self, until: float) -> None:
        """It led no further: asks for no more before `until`."""
        self._fetch_at = until

    def go_on(self, number: int, seat: Seat, now: float) -> list[FetchHistory]:
        """What member number `number` sent led further: asks for more, if that was not all."""
        return self.hear_of(number, self._top, seat, now)

    def adopt(self, certificate: Certificate, seat: Seat, now: float) -> Adopt:
        """Asks for the model: first from live signers, then from whoever else may have it.

        Everybody begins with another one of them, those after it in the order of their numbers.
        """
        panel = self._links.panel_of(certificate)
        signers = 0 if panel is None else set_of(panel.members[voter] for voter, _ in certificate.votes)
        others = self._others(seat.roster.live(now), signers, seat)
        return Adopt(certificate=certificate, holders=_peers(others, seat))

    @staticmethod
    def _others(live: int, signers: int, seat: Seat) -> list[int]:
        """The other members, in the order to ask them."""
        active, up_to_me = seat.membership.active, (2 << seat.me) - 1
        others = [active & ~up_to_me, active & up_to_me & ~(1 << seat.me)]
        kinds = (live & signers, live & ~signers, ~live & signers, ~live & ~signers)
        found = [number for kind in kinds for some in others for number in numbers_in(some & kind)]
        return found[:MAX_HOLDERS]


def _peers(numbers: Sequence[int], seat: Seat) -> tuple[PeerId, ...]:
    return tuple(seat.membership.members[number] for number in numbers)
