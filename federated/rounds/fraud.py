"""Blocks that a bad committee certified: who finds out, who is told, and what the next committee does.

    certified ──we audit it──┐
    Fraud, heard as a voter ─┼─→ Recompute ─→ AGREES ────→ who accused is not listened to again
    VOID changes, proposed ──┘              ├→ DIFFERS ───→ Fraud, journaled, and said in each round; when we
                                            │               lead: the model before it, its signers ejected
                                            └→ UNAVAILABLE: proves nothing; tried again for who accuses anew

Nobody's word counts: a voter votes for a block that declares another one void only if it computed that one
itself. A block that restores a model (`federated.rounds.recent`) is a fraud exactly when the block that it
names is none. Whoever signed a block computed it before, and needs not do so again.

This is about the computation alone. Bytes that all signers keep to themselves prove nothing, and nobody can
see whether an update in the list is really by its owner, but the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from federated.manifest import RoundPolicy
from federated.rounds.actions import Action, Audited, Misbehaved, Publish, Recompute, WriteJournal
from federated.rounds.audits import auditors
from federated.rounds.chain import Links
from federated.rounds.changes import pack_signed
from federated.rounds.committee import Panel, numbers_in
from federated.rounds.events import Recomputed, Verdict
from federated.rounds.messages import MAX_CHANGES, Block, Body, Change, ChangeKind, Fraud, Model
from federated.rounds.past import Past
from federated.rounds.recent import REACH, Decided
from federated.rounds.roster import minimum_of

MAX_AT_ONCE = 2  # blocks that are computed again at a time
MAX_HOLDERS = 64  # members that are asked for the bytes of a block

_OPPOSITE = {Verdict.AGREES: Verdict.DIFFERS, Verdict.DIFFERS: Verdict.AGREES}


@dataclass(slots=True, kw_only=True)
class _Case:
    """A block that may be a fraud; `accusers` has who says so, and in which round it was listened to last."""

    accusers: dict[int, int] = field(default_factory=dict)
    is_ours: bool = False  # to be computed again whether we vote or not
    is_due: bool = True  # somebody has accused since it was computed last
    is_written: bool = False
    is_said: bool = False
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What a leader does about a fraud: `changes` with their `proofs`, and the `model` to restore, if any."""

    changes: tuple[Change, ...]
    proofs: tuple[bytes, ...]
    model: Model | None


class Frauds:
    """What member number `me` knows of frauds in the chain `links`; of none where no committee is drawn.

    `changes` goes up with what is learned. Methods return what is to be done.
    """

    def __init__(
        self, *, links: Links, me: int, policy: RoundPolicy, max_update: int, is_drawn: bool
    ) -> None:
        self.changes = 0
        self._links = links
        self._me = me
        self._policy = policy
        self._max_update = max_update
        self._is_drawn = is_drawn
        self._is_voter = False  # in the round in progress
        self._initial: Model | None = None
        self._cases: dict[int, _Case] = {}  # by round, one for each within reach
        self._found: dict[int, Verdict] = {}  # by round, what was computed again
        self._running: dict[int, None] = {}
        self._false: dict[int, None] = {}  # members that called a true block a fraud

    def start(self, initial: Model, entries: Iterable[Body]) -> list[Action]:
        """Goes on after a restart: what was heard or found is computed again."""
        self._initial = initial
        for entry in entries:
            if isinstance(entry, Fraud) and self._is_named(entry):
                self._cases[entry.round] = _Case(is_ours=True, is_written=True)
        return self._pursue()

    def certified(self) -> list[Action]:
        """The chain is longer: computes its last block again if that is our part."""
        number = self._links.head.round
        for known in (self._cases, self._found):
            for old in [item for item in known if item <= number - REACH]:
                del known[old]
        decided = self._links.recent.get(number)
        if not self._is_drawn or decided is None or self.verdict(number) is not None:
            return []
        if auditors(decided) >> self._me & 1:
            self._cases[number] = _Case(is_ours=True)
        return self._pursue()

    def turn(self, panel: Panel) -> list[Action]:
        """A round begins, in which `panel` votes: says again what is not settled."""
        self._is_voter = bool(panel.voters >> self._me & 1)
        for case in self._cases.values():
            case.is_due |= case.is_ours
            case.is_said = False
        return [*self._say(), *self._pursue()]

    def hear(self, sender: int, body: Fraud) -> list[Action]:
        """Member number `sender` says that a block is a fraud."""
        round_number, head = body.round, self._links.head.round
        if not self._is_drawn or sender in self._false or not head - REACH < round_number <= head:
            return []
        verdict = self.verdict(round_number)
        if not self._is_named(body) or verdict is Verdict.AGREES:
            return self._blame(sender, round_number)
        case = self._cases.setdefault(round_number, _Case(is_due=False))
        if verdict is Verdict.DIFFERS or case.accusers.get(sender) == head:
            return []
        case.accusers[sender] = head
        case.is_due = True
        actions: list[Action] = [] if case.is_written else [WriteJournal(entries=(body,))]
        case.is_written = True
        return [*actions, *self._pursue()]

    def consider(self, block: Block, leader: int) -> list[Action]:
        """Member number `leader` proposes `block`: if that names a fraud, it is as if it had said so."""
        decided = self._links.recent.named(block)
        return [] if decided is None else self.hear(leader, decided.fraud)

    def handle(self, event: Recomputed) -> list[Action]:
        """What came of a `Recompute`."""
        self._running.pop(event.round, None)
        if not self._is_named(Fraud(round=event.round, block=event.block)):
            return self._pursue()  # it took so long that nobody can be told
        self._found[event.round] = event.verdict
        self.changes += 1
        audited = Audited(round=event.round, block=event.block, verdict=event.verdict, rule=event.rule)
        return [audited, *self._say(), *self._acquit(), *self._pursue()]

    # what is known

    def verdict(self, round_number: int) -> Verdict | None:
        """What we know ourselves of the block of a round; None when that is open."""
        decided = self._links.recent.get(round_number)
        if decided is None:
            return None
        if decided.signers >> self._me & 1:
            return Verdict.AGREES
        if decided.restores is not None:
            known = self.verdict(decided.restores)
            return known if known is None else _OPPOSITE.get(known, known)
        if not decided.certificate.block.participants:
            return Verdict.AGREES  # nothing was computed
        return self._found.get(round_number)

    def accepts(self, block: Block) -> bool:
        """Whether the next block may name what it names, and has the model that goes with it."""
        return (self._is_drawn or not block.voids) and self._links.recent.accepts(block)

    def judge(self, block: Block) -> bool | None:
        """Whether what the next block declares void is a fraud; None while we do not know."""
        if not block.voids:
            return True
        decided = self._links.recent.named(block)
        verdict = None if decided is None else self.verdict(decided.certificate.round)
        return None if verdict is None else verdict is Verdict.DIFFERS

    def restored(self, block: Block) -> Model | None:
        """The model that the next block must have since it restores one; None when it does not."""
        decided = self._links.recent.named(block)
        if decided is None or not self._links.recent.counts(decided.certificate.round):
            return None
        return self._before(decided.certificate.round)

    def remedy(self) -> Remedy | None:
        """What the next block is to do about the frauds that we know of: the earliest that counts first."""
        counts = self._links.recent.counts
        known = [number for number in self._cases if self.verdict(number) is Verdict.DIFFERS]
        remedies = [self._remedy(number) for number in sorted(known, key=lambda n: (not counts(n), n))]
        return next((item for item in remedies if item is not None), None)

    def _remedy(self, round_number: int) -> Remedy | None:
        recent, members = self._links.recent, self._links.head.membership
        decided, model = recent.get(round_number), None
        if decided is None or round_number <= self._links.head.round - REACH:
            return None
        guilty = decided.signers & members.active
        if guilty == members.active:
            guilty &= guilty - 1  # somebody has to be left
        if recent.counts(round_number):
            model = self._before(round_number)
            guilty = guilty or decided.signers  # all are gone: they are named all the same
        if not guilty or (model is None and recent.counts(round_number)):
            return None
        named = numbers_in(guilty)[: MAX_CHANGES if guilty & members.active else 1]
        changes = tuple(
            Change(kind=ChangeKind.VOID, peer=members.members[number], proof=decided.proof)
            for number in named
        )
        proofs = tuple(pack_signed(decided.signed(number)) for number in named)
        return Remedy(changes=changes, proofs=proofs, model=model)

    def _is_named(self, fraud: Fraud) -> bool:
        """Whether the block is one of ours, and near enough to be declared void."""
        decided = self._links.recent.get(fraud.round)
        near = fraud.round > self._links.head.round - REACH
        return near and decided is not None and decided.fraud == fraud

    def _before(self, round_number: int) -> Model | None:
        """The model before a round; None when that is too long ago."""
        if round_number == 1:
            return self._initial
        decided = self._links.recent.get(round_number - 1)
        return None if decided is None else decided.certificate.block.model

    # what is done

    def _pursue(self) -> list[Action]:
        """Begins to compute what is due, as many at once as may be; what was tried least comes first."""
        actions: list[Action] = []
        cases = sorted(self._cases.items(), key=lambda item: (item[1].tries, item[0]))
        for number, case in cases:
            subject = self._subject(number)
            known = self.verdict(number)
            is_wanted = case.is_due and (case.is_ours or self._is_voter)
            if not is_wanted or subject is None or known in _OPPOSITE:
                continue
            if subject.certificate.round in self._running or len(self._running) >= MAX_AT_ONCE:
                continue
            action = self._recompute(subject, [*case.accusers])
            case.is_due = False
            if action is not None:
                case.tries += 1
                self._running[action.round] = None
                actions.append(action)
        return actions

    def _subject(self, round_number: int) -> Decided | None:
        """The block to compute in order to judge that of a round."""
        decided = self._links.recent.get(round_number)
        while decided is not None and decided.restores is not None:
            decided = self._links.recent.get(decided.restores)
        return decided

    def _recompute(self, decided: Decided, accusers: Sequence[int]) -> Recompute | None:
        number, late = decided.certificate.round, self._policy.max_staleness
        base, earlier = self._before(number), self._links.recent.last(late, number)
        if base is None or len(earlier) < min(late, number - 1):
            return None
        past = Past(late)
        past.add(earlier)
        size, members = decided.membership.size, self._links.head.membership.members
        signers = sorted(numbers_in(decided.signers), key=lambda signer: (signer - self._me) % size)
        holders = [member for member in dict.fromkeys([*accusers, *signers]) if member != self._me]
        return Recompute(
            certificate=decided.certificate,
            base=base,
            bases=past.bases(base.digest),
            membership=decided.membership,
            minimum=minimum_of(self._policy, decided.membership),
            max_update=self._max_update,
            holders=tuple(members[member] for member in holders[:MAX_HOLDERS]),
        )

    def _say(self) -> list[Action]:
        """Tells of the frauds that we know of, as long as anything is to be done about them."""
        actions: list[Action] = []
        for number, case in sorted(self._cases.items()):
            if case.is_said or self.verdict(number) is not Verdict.DIFFERS or self._remedy(number) is None:
                continue
            decided = self._links.recent.get(number)
            assert decided is not None
            if not case.is_written:
                actions.append(WriteJournal(entries=(decided.fraud,)))
            case.is_said = case.is_written = True
            actions.append(Publish(body=decided.fraud))
        return actions

    def _acquit(self) -> list[Action]:
        """Blames who accused blocks that are none."""
        actions: list[Action] = []
        for number, case in sorted(self._cases.items()):
            if self.verdict(number) is Verdict.AGREES:
                for accuser in case.accusers:
                    actions += self._blame(accuser, number)
                case.accusers = {}
        return actions

    def _blame(self, member: int, round_number: int) -> list[Action]:
        """The member is not listened to any more."""
        if member in self._false:
            return []
        self._false[member] = None
        peer = self._links.head.membership.members[member]
        return [Misbehaved(round=round_number, peer=peer, rule="accusation")]
