"""What the round machine asks for. What it is told is in `federated.rounds.events`.

Actions are carried out in the order given. `WriteJournal` is durable before the next one begins, and so is
the `Checkpoint` of the last round; any other one before the next checkpoint begins. `Publish` hands a message
to gossip. The others start work whose result comes back as an event of the same round; results that nobody
waits for any more are ignored, so the work of a round can be dropped at its `RoundFinished`, but for a
training, which ends with its `StopTraining`, and for a `Recompute`, which is of an earlier round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federated.rounds.committee import Membership
from federated.rounds.events import Input, Inputs, Phase, Verdict
from federated.rounds.messages import Body, Capability, Certificate, Change, Model
from federated.rounds.past import Base
from p2p.peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteJournal:
    """Append the entries, in order, and sync them to disk before going on.

    Those of a round may go once its `Checkpoint` is on the disk; `Accuse`, `Fraud` and `Leave` are kept as
    long as the task.
    """

    entries: tuple[Body, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Save the certificate and its model together, whole or not at all, while the next round goes on.

    The model is what `Aggregated` or `ModelAdopted` came with, or the one before when the round is
    skipped; it stays in the blob store, for others to adopt.
    `chain` has the certificates since the last checkpoint, up to this one: all of them are kept for good.
    """

    certificate: Certificate
    chain: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Put the body in an envelope and publish it on the task's topic."""

    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train on the current model → `Trained` or `TrainFailed`; it goes on over the end of its round."""

    round: int
    base: Model


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTraining:
    """The update of the round would come too late."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Get the bytes behind `root`, from the store or a holder, best first → `Fetched` or `FetchFailed`."""

    round: int
    root: bytes
    size: int
    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """Check one update that is at hand, on its own → `Validated`."""

    round: int
    input: Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """Screen, then average, updates that are at hand → `Aggregated`, `Screened` or `AggregateFailed`.

    `listed` is their list (`federated.rounds.inputs`), to be had by others as long as the updates.
    """

    round: int
    inputs: Inputs
    listed: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompute:
    """Compute the certificate's block again, from the list of its updates on → `Recomputed`, within a phase.

    `base` is the model before the round, `bases` those that its updates may build on, and `membership` has
    the members then; `minimum` is how few updates made a round, `max_update` how many bytes each could have.
    The list and the model are with `holders`, best first, and each update is with its owner too.
    """

    certificate: Certificate
    base: Model
    bases: tuple[Base, ...]
    membership: Membership
    minimum: int
    max_update: int
    holders: tuple[PeerId, ...]

    @property
    def round(self) -> int:
        """The round that is computed again."""
        return self.certificate.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Get the certificate's model from the store or a holder → `ModelAdopted` or `AdoptFailed`.

    A later one replaces it. The bytes must have the certificate's digest, or they are not its model.
    """

    certificate: Certificate
    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchHistory:
    """Get `count` certificates from round `first` on, of a holder → `HistoryFetched` or `HistoryFailed`."""

    first: int
    count: int
    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished:
    """For the log: a phase of the round took `seconds`.

    Where it waited for members, `answers` of them had done their part, and `needed` would have ended it;
    fewer answers than needed mean that its deadline did.
    """

    round: int
    phase: Phase
    seconds: float
    answers: int = 0
    needed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFinished:
    """`model` is the current model now, and saved. What was asked for in this round is void.

    `catch_up` is set when the model was fetched instead of computed. `refused` holds what this
    peer refused: (whose update, rule). `phases` are seconds by phase, for as far as this peer went.
    `late` has the participants whose updates were late, as far as this peer saw: (whose update, rounds).
    """

    round: int
    model: Model
    skipped: bool
    participants: tuple[PeerId, ...]
    refused: tuple[tuple[PeerId, str], ...]
    seconds: float
    phases: Mapping[Phase, float]
    catch_up: bool
    late: tuple[tuple[PeerId, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished:
    """The last round is done. The machine goes on answering members that are behind."""

    model: Model


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipChanged:
    """The block of `round` has `changes`: from the next one on, `membership` holds.

    Messages of peers that are not active in it need not be let in any more.
    """

    round: int
    membership: Membership
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejected:
    """For the log and the score: the block of `round` ejects `peer`; `evidence` is the hash of why."""

    round: int
    peer: PeerId
    evidence: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLeft:
    """The block of `round` says that we are no member any more. Nothing follows.

    `ejected` tells whether that was against our will.
    """

    round: int
    ejected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityAnnounced:
    """For the log: what `peer`, who may be this one, says that it can do; replaces what it said before."""

    peer: PeerId
    capability: Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyChanged:
    """We are too slow to aggregate in this round, and leave it to others; or have to do it after all."""

    round: int
    relieved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """For the log: what this peer found when it computed the block of `round` again."""

    round: int
    block: bytes
    verdict: Verdict
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestMismatch:
    """For the log: `peer` has another model than we, from the same round and inputs."""

    round: int
    peer: PeerId
    ours: bytes
    theirs: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaved:
    """For the log and the score: `peer` broke `rule`; told once a round.

    `commitment`: a reveal that does not match its commit. `size`: an update over the limit. `twice`:
    a second commit or reveal. `signature`: a vote, proof or certificate that is false.
    `past`: a certificate that builds on another block than the one that was certified before it.
    `changes`: a certificate with changes of the membership that cannot be, or a proposal that proves none.
    `equivocation`: two proposals or votes that exclude each other. `evidence`: evidence that is none.
    `void`: a certificate that restores a model where it may not. `accusation`: a fraud that is none.
    """

    round: int
    peer: PeerId
    rule: str


Action = (
    WriteJournal
    | Checkpoint
    | Publish
    | Train
    | StopTraining
    | Fetch
    | Validate
    | Aggregate
    | Adopt
    | FetchHistory
    | Recompute
    | PhaseFinished
    | RoundFinished
    | TaskFinished
    | MembershipChanged
    | Ejected
    | TaskLeft
    | CapabilityAnnounced
    | DutyChanged
    | Audited
    | DigestMismatch
    | Misbehaved
)


def merged(actions: Iterable[Action]) -> list[Action]:
    """The same, with journal entries that follow one another in one action: each takes a disk its time."""
    found: list[Action] = []
    for action in actions:
        if isinstance(action, WriteJournal) and found and isinstance(found[-1], WriteJournal):
            found[-1] = WriteJournal(entries=(*found[-1].entries, *action.entries))
        else:
            found.append(action)
    return found
