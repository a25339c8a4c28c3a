"""What the round machine is told. What it asks for is in `federated.rounds.actions`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from federated.rounds.messages import Body, Capability, Certificate, Model
from p2p.peer_id import PeerId


class Phase(Enum):
    """Where a machine is in its round; drawn in `federated.rounds.machine`."""

    IDLE = "idle"
    SYNC = "sync"
    TRAIN = "train"
    COMMIT = "commit"
    REVEAL = "reveal"
    FETCH = "fetch"
    VALIDATE = "validate"
    AGGREGATE = "aggregate"
    VOTE = "vote"
    AWAIT = "await"
    CERTIFIED = "certified"
    FINISHED = "finished"
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One update to aggregate: whose, where its bytes are, and the examples it stands for.

    It was trained on the model before the round that is `staleness` rounds earlier.
    """

    peer: PeerId
    root: bytes
    size: int
    examples: int
    staleness: int = 0

    def __hash__(self) -> int:
        return hash(self.root)  # of all its fields it takes ten times as long, and sets of updates are keys


Inputs = tuple[Input, ...]  # in the order of their roots, each root once


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first event. `initial` is the model before round 1, which every member makes for itself.

    After a restart: `certificate` is the one in the checkpoint, `entries` is the journal in the
    order written. The checkpoint's model, and our own update when the journal has one, are at hand.
    `history` has the newest certificates that are known, one after the other. They may go beyond the
    checkpoint, as those of a member that has just been admitted: the model of the last one is fetched then.
    """

    initial: Model
    certificate: Certificate | None = None
    entries: tuple[Body, ...] = ()
    history: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    """A decoded, fresh message of this task; `sender` is the signed origin of the gossip message."""

    sender: PeerId
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected:
    """There is a connection to `peer`."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost:
    """The last connection to `peer` is gone."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """`Train` is done; the update's bytes are in the blob store and stay there over a crash."""

    round: int
    root: bytes
    size: int
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFailed:
    """`Train` came to nothing; this peer has no update in the round."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The bytes behind `root` are at hand until the round is finished."""

    round: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailed:
    """No holder gave the bytes behind `root`."""

    round: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """The update was checked on its own; `rule` is the rule it breaks, None when it is fine."""

    round: int
    root: bytes
    rule: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """Some of `inputs` do not fit the rest: (root, rule) of each; nothing was aggregated."""

    round: int
    inputs: Inputs
    refused: tuple[tuple[bytes, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregated:
    """The model that `inputs` make. Its bytes are at hand until the round is finished."""

    round: int
    inputs: Inputs
    model: Model


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateFailed:
    """`inputs` do not make a model."""

    round: int
    inputs: Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAdopted:
    """The certificate's model was fetched, has the certified digest, and is at hand."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptFailed:
    """No holder gave the certificate's model; the machine asks again after a while."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFetched:
    """What `holder` answered to `FetchHistory`: certificates that nobody has checked, perhaps none."""

    holder: PeerId
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFailed:
    """No holder answered `FetchHistory`; the machine asks again after a while."""


class Verdict(Enum):
    """Whether a certified block is what its updates come to."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNAVAILABLE = "unavailable"  # some bytes could not be had; that proves nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """What `Recompute` came to; where the block `differs`, `rule` is the first one that it breaks.

    The bytes behind such a block stay at hand, for others that want to see for themselves.
    """

    round: int
    block: bytes
    verdict: Verdict
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveWanted:
    """This peer is to leave the task; `TaskLeft` follows once that is certified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What this peer can do is not what it was; the machine announces it, with a round of its own choice."""

    capability: Capability


WorkEvent = (
    Trained | TrainFailed | Fetched | FetchFailed | Validated | Screened | Aggregated | AggregateFailed
)
Event = (
    Started
    | MessageReceived
    | PeerConnected
    | PeerLost
    | WorkEvent
    | ModelAdopted
    | AdoptFailed
    | HistoryFetched
    | HistoryFailed
    | Recomputed
    | LeaveWanted
    | Measured
)
