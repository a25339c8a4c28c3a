"""Our addresses as others see them: believed once enough of them, who are not one, agree.

    report ──→ plausible? ──→ one vote of the observer, in place of its last one
    4 groups of observers agree ──→ the address is ours, until votes go and 3 are left

A vote lasts as long as the observer's connection and 30 minutes more. A machine: `now` is in seconds.
Source: go-libp2p p2p/host/observedaddrs (`ActivationThresh`, observers grouped by IPv4 address or
IPv6 /56, inbound connections count, 3 addresses for each kind).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from p2p.address import ip_of
from p2p.identify.trust import Reach, group_of, reach_of
from p2p.peer_id import PeerId

ACTIVATION = 4  # groups of observers, as go
VOTE_TTL = 1800.0  # seconds after the observer has left; go's OwnObservedAddrTTL
MAX_VOTES = 1024  # the oldest goes first
MAX_VOTES_A_GROUP = 8  # peers behind one IP address that are remembered: go takes 8 connections of it
MAX_CONFIRMED = 3  # addresses of one kind (tcp over IPv4, ...) that are ours at once, as go


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`observer`, connected from (or at) `address`, sees us as `observed`; `outbound`: we dialed."""

    observer: PeerId
    address: Multiaddr
    outbound: bool
    observed: Multiaddr


@dataclass(slots=True)
class _Vote:
    observed: Multiaddr
    group: str
    expires: float


class ObservedAddresses:
    """The votes of observers and the addresses that they confirm."""

    def __init__(self) -> None:
        self._votes: dict[PeerId, _Vote] = {}  # oldest first
        self.confirmed: tuple[Multiaddr, ...] = ()

    def handle_report(self, report: Report, listen: Sequence[Multiaddr]) -> bool:
        """Takes a report of a connected peer; `listen` is where we listen. Whether `confirmed` changed."""
        group = group_of(report.address)
        if group is None or not _plausible(report, listen):
            return False
        self._votes.pop(report.observer, None)
        peers = [peer for peer, vote in self._votes.items() if vote.group == group]
        if len(peers) >= MAX_VOTES_A_GROUP:
            del self._votes[peers[0]]
        self._votes[report.observer] = _Vote(report.observed, group, math.inf)
        if len(self._votes) > MAX_VOTES:
            del self._votes[next(iter(self._votes))]
        return self._count()

    def handle_disconnected(self, peer: PeerId, now: float) -> None:
        """`peer` is gone: its vote lasts for 30 more minutes."""
        if (vote := self._votes.get(peer)) is not None:
            vote.expires = now + VOTE_TTL

    def next_deadline(self) -> float | None:
        """When `handle_timer` is needed next."""
        soonest = min((vote.expires for vote in self._votes.values()), default=math.inf)
        return None if soonest == math.inf else soonest

    def handle_timer(self, now: float) -> bool:
        """Forgets votes that are too old. Whether `confirmed` changed."""
        for peer in [peer for peer, vote in self._votes.items() if vote.expires <= now]:
            del self._votes[peer]
        return self._count()

    def _count(self) -> bool:
        groups = {(vote.observed, vote.group): None for vote in self._votes.values()}
        votes = Counter(observed for observed, _ in groups)
        confirmed: list[Multiaddr] = []
        of_kind: Counter[tuple[str, ...]] = Counter()
        for observed, count in votes.most_common():  # equals in the order of their first vote
            if count < ACTIVATION:
                break
            of_kind[_kind(observed)] += 1
            if of_kind[_kind(observed)] <= MAX_CONFIRMED:
                confirmed.append(observed)
        before, self.confirmed = self.confirmed, tuple(confirmed)
        return self.confirmed != before


def _plausible(report: Report, listen: Sequence[Multiaddr]) -> bool:
    """Whether the observer can have seen that, and others could dial it.

    It must be an address of a kind that we listen on, as far-reaching as the observer's own. A
    connection that we dialed comes from a port of its own, which nobody can dial: unless it is a
    port on which we listen, what is seen there is worth nothing.
    """
    observed, observer = ip_of(report.observed), ip_of(report.address)
    if observed is None or observer is None or observed.version != observer.version:
        return False
    reach = reach_of(report.observed)
    if reach is Reach.LOOPBACK or reach != reach_of(report.address) or report.observed in listen:
        return False
    same_kind = [address for address in listen if _kind(address) == _kind(report.observed)]
    if report.outbound:
        return any(_port(address) == _port(report.observed) for address in same_kind)
    return bool(same_kind)


def _kind(address: Multiaddr) -> tuple[str, ...]:
    """The names of the protocols in `address`: ("ip4", "tcp", "ws")."""
    return tuple(protocol.name for protocol in address.protocols())


def _port(address: Multiaddr) -> str:
    """What stands behind the IP address and the name of its transport; kinds with it are alike in this."""
    return str(address).split("/")[4]
