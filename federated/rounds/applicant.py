"""A peer that is not yet a member: follows a task's chain, and asks to be let in. Without I/O.

    FOLLOW ──holders have no more──→ ASK ──a certificate has our join──→ ADMITTED
      ↑                               │
      └───────others are ahead────────┘     a rule is against us, or the task is over → REFUSED

A certificate counts after the one before it, from round 1 or from a block that the user trusts
(`federated.rounds.trusted`); so it does not matter who sent it. It comes by gossip, or out of the history
that members keep: asked for at the beginning, when one of a later round than the next has come, and every
period, in case both were lost.

How to drive it: as `federated.rounds.machine`, whose events and actions it shares. After `Admitted` or
`Refused` it does nothing any more; the rest is the business of a `RoundMachine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf

from federated.manifest import TaskManifest
from federated.rounds.actions import FetchHistory, Misbehaved, Publish
from federated.rounds.admission import Admissions
from federated.rounds.chain import Links, genesis
from federated.rounds.committee import Electorate, Membership, Verify, verify_signature
from federated.rounds.events import HistoryFailed, HistoryFetched, MessageReceived, PeerConnected, PeerLost
from federated.rounds.messages import Certificate, Join
from federated.rounds.trusted import TrustedBlock, TrustedPast
from p2p.peer_id import PeerId

BATCH = 16  # certificates asked for at once; to check so many takes at most 50 ms
MAX_HOLDERS = 8  # asked one after the other, until one answers
REPEATS = 4  # joins in the deadline of a phase ...
MIN_PERIOD, MAX_PERIOD = 1.0, 5.0  # ... and the limits of the seconds between two


class Stage(Enum):
    """Where an applicant is."""

    FOLLOW = "follow"
    ASK = "ask"
    ADMITTED = "admitted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """`certificate` made us a member; `history` ends with it, `membership` holds in the round after it."""

    certificate: Certificate
    membership: Membership
    history: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """We will not be a member: by a rule of `federated.rounds.admission`; or the task is over ("finished").

    Or else the block that the user trusts is none of this task ("trusted").
    """

    rule: str


ApplicantEvent = MessageReceived | PeerConnected | PeerLost | HistoryFetched | HistoryFailed
ApplicantAction = Publish | FetchHistory | Misbehaved | Admitted | Refused


class Applicant:
    """Gets `peer` into the task of `manifest` by its `credential`; `initial` is the first model's digest.

    Everything up to the block `trusted` is known by the hash of that one, if there is one.
    """

    def __init__(
        self,
        *,
        manifest: TaskManifest,
        peer: PeerId,
        credential: bytes,
        initial: bytes,
        trusted: TrustedBlock | None = None,
        verify: Verify = verify_signature,
    ) -> None:
        self.stage = Stage.FOLLOW
        self._rounds = manifest.rounds
        self._peer = peer
        self._credential = credential
        self._admissions = Admissions(manifest)
        start = genesis(Membership(manifest.task_id, manifest.peer_ids), initial)
        self._electorate = Electorate(manifest.committee, verify)
        self._links = Links(self._electorate, start)
        self._past = None if trusted is None else TrustedPast(start, trusted)  # until it is complete
        self._period = min(max(manifest.policy.phase_deadline_s / REPEATS, MIN_PERIOD), MAX_PERIOD)
        self._history: list[Certificate] = []
        self._connected: dict[PeerId, None] = {}
        self._distrusted: dict[PeerId, None] = {}  # of those that are connected
        self._fetching = False
        self._turn = 0  # whom to ask first; moves on with each answer that brought nothing
        self._turn_at = -inf  # when to ask for history, and to be let in, once more
        self._actions: list[ApplicantAction] = []

    @property
    def reached(self) -> int:
        """The last round that we know to be certified."""
        return self._links.head.round

    @property
    def membership(self) -> Membership:
        """The members after that round."""
        return self._links.head.membership

    def handle(self, event: ApplicantEvent, now: float) -> list[ApplicantAction]:
        """What is to be done after `event`."""
        if self._is_over:
            return []
        match event:
            case PeerConnected(peer=peer):
                self._connected[peer] = None
                if self.stage is Stage.FOLLOW:
                    self._fetch()
            case PeerLost(peer=peer):
                self._connected.pop(peer, None)
                self._distrusted.pop(peer, None)
            case MessageReceived(sender=peer, body=Certificate() as certificate):
                self._hear(peer, certificate)
            case HistoryFetched(holder=peer, certificates=certificates):
                self._fetching = False
                if self._past is None:
                    self._receive_history(peer, certificates[:BATCH])
                else:
                    self._receive_past(self._past, peer, certificates[:BATCH])
            case HistoryFailed():
                self._fetching = False
                self._end_following()
            case _:
                pass
        return self._take_actions()

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        return None if self._is_over else self._turn_at

    def handle_timer(self, now: float) -> list[ApplicantAction]:
        """What is to be done now that time has passed."""
        if not self._is_over and now >= self._turn_at:
            self._turn_at = now + self._period
            self._fetch()
            if self.stage is Stage.ASK:
                self._ask()
        return self._take_actions()

    @property
    def _is_over(self) -> bool:
        return self.stage in (Stage.ADMITTED, Stage.REFUSED)

    def _take_actions(self) -> list[ApplicantAction]:
        actions, self._actions = self._actions, []
        return actions

    # the chain

    def _fetch(self) -> None:
        """Asks the next few holders for the next few certificates, unless some are on their way."""
        known = [peer for peer in self._connected if peer not in self._distrusted]
        if self._fetching or not known or self._is_over:
            return
        self._fetching = True
        known.sort(key=lambda peer: not self.membership.is_active(peer))  # members have them for sure
        start = self._turn % len(known)
        holders = (*known[start:], *known[:start])[:MAX_HOLDERS]
        first, count = (self.reached + 1, BATCH) if self._past is None else self._past.next_range(BATCH)
        self._actions.append(FetchHistory(first=first, count=count, holders=holders))

    def _hear(self, peer: PeerId, certificate: Certificate) -> None:
        """A certificate by gossip: the next one, or one that tells that others are ahead."""
        if self._past is not None:
            return
        if certificate.round == self.reached + 1:
            self._receive(peer, certificate)
        elif certificate.round > self.reached:
            self.stage = Stage.FOLLOW
            self._fetch()

    def _receive_history(self, holder: PeerId, certificates: tuple[Certificate, ...]) -> None:
        before = self.reached
        for certificate in certificates:
            self._receive(holder, certificate)
        if self.reached == before:
            self._turn += 1
        if holder in self._distrusted or self.reached - before == BATCH:
            self._fetch()
        else:
            self._end_following()

    def _receive_past(self, past: TrustedPast, holder: PeerId, certificates: tuple[Certificate, ...]) -> None:
        """Takes certificates from before the trusted block; with all of them we are there."""
        wanted = past.next_range(1)
        if not past.receive(certificates):
            self._distrust(holder, past.next_range(1)[0], "trusted")
        if past.is_complete:
            self._begin_after(past)
        if past.next_range(1) == wanted and holder not in self._distrusted:
            self._turn += 1  # it has none: somebody else is asked in the next period
        else:
            self._fetch()

    def _begin_after(self, past: TrustedPast) -> None:
        """All certificates up to the trusted block are here."""
        self._past, head = None, past.head()
        if head is None:
            self._refuse("trusted")
            return
        self._links, self._history = Links(self._electorate, head), past.certificates()
        self._links.restore(self._history)
        self._settle(self._history[-1])

    def _receive(self, peer: PeerId, certificate: Certificate) -> None:
        """Follows one more certificate; `peer` is not asked any more when it does not fit."""
        if self._is_over or peer in self._distrusted or certificate.round <= self.reached:
            return
        rule = self._links.fault(certificate)
        if rule is None:
            self._links.advance(certificate)
            self._history.append(certificate)
            self._settle(certificate)
        else:
            self._distrust(peer, certificate.round, rule)

    def _distrust(self, peer: PeerId, round_number: int, rule: str) -> None:
        self._distrusted[peer] = None
        self._actions.append(Misbehaved(round=round_number, peer=peer, rule=rule))

    def _settle(self, certificate: Certificate) -> None:
        """Looks what it means to us that `certificate` is the last one."""
        if self.membership.is_active(self._peer):
            self.stage = Stage.ADMITTED
            history = tuple(self._history)
            self._actions.append(
                Admitted(certificate=certificate, membership=self.membership, history=history)
            )
        elif self.reached >= self._rounds:
            self._refuse("finished")

    # the join

    def _end_following(self) -> None:
        """Nobody has more to tell."""
        if self.stage is Stage.FOLLOW and self._past is None:
            self.stage = Stage.ASK
            self._ask()

    def _ask(self) -> None:
        """Asks the leaders of the next rounds to let us in, unless they would refuse."""
        number, members = self.reached + 1, self.membership
        rule = self._admissions.judge(self._credential, self._peer, number, members, members.used)
        if rule is None:
            self._actions.append(Publish(body=Join(round=number, credential=self._credential)))
        else:
            self._refuse(rule)

    def _refuse(self, rule: str) -> None:
        self.stage = Stage.REFUSED
        self._actions.append(Refused(rule=rule))
