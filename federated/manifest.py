"""The task manifest: what a person writes to describe one training task, and its identity.

The canonical form is the model's JSON with every default filled in, sorted keys and no spaces; the
members stand in the order of their ids. The SHA-256 of these bytes is the task id, so two peers
that read files with the same meaning are in the same task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Annotated, Literal, NewType

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from federated.accountant import epsilon, rdp
from federated.errors import ManifestError
from p2p.errors import InvalidKey
from p2p.keys import KeyType
from p2p.peer_id import PeerId

TaskId = NewType("TaskId", bytes)

MAX_MANIFEST = 1 << 17  # bytes; 1024 members take about 56 KiB, settings are small
MAX_MEMBERS = 1024  # peers; each one hears the commit of each other one
MAX_COMMITTEE = 64  # votes; a quorum of them fits into one announcement of 4 KiB
MIN_COMMITTEE = 4  # votes; the fewest of which one may be a liar's
MAX_ISSUERS = 64  # peers; more than ever hand out invitations to one task
MIN_WORK, MAX_WORK = 8, 32  # zero bits; 32 take one core about an hour
MAX_ROUNDS = 10_000  # rounds; bounds the journal and the report of one task
MAX_SEED = (1 << 53) - 1  # the largest integer that every JSON reader keeps exact, RFC 8259 section 6
MAX_DEADLINE = 86_400.0  # seconds; a phase that lasts longer than a day is a mistake
MAX_UPDATE = 1 << 30  # bytes of one update, held in memory once per member
MAX_STALENESS = 8  # rounds by which an update may be late
MIN_HOLDERS = 5  # of shares; the fewest of which one may be bad
MAX_HOLDERS = 21  # of shares; five may be bad, and who opens can still be looked for in all ways
STEP = 3  # rounds that one secure sum takes
MAX_PATH = 3  # steps; `trainer.settings.lr` is the longest name of a field

_PluginName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Deadline = Annotated[float, Field(gt=0, le=MAX_DEADLINE)]
_Share = Annotated[float, Field(gt=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class PluginRef(_Model):
    """A plugin by its entry-point name, and the keyword arguments it is made with."""

    name: _PluginName
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class RoundPolicy(_Model):
    """When a phase of a round ends, and when a round counts."""

    train_deadline_s: _Deadline = 60.0  # from the start of a round to the last commit
    phase_deadline_s: _Deadline = 10.0  # of every other phase
    quorum: _Share = 1.0  # share of the live members that ends a phase before its deadline
    grace_s: Annotated[float, Field(ge=0, le=MAX_DEADLINE)] = 0.0  # a lost member is still waited for
    min_updates: _Share = 0.5  # share of all members; with fewer updates the round is skipped
    max_staleness: Annotated[int, Field(ge=0, le=MAX_STALENESS)] = 0  # rounds by which updates may be late
    quality_every: Annotated[int, Field(ge=0, le=MAX_ROUNDS)] = 0  # rounds between two reports of quality
    max_loss_rise: Annotated[float, Field(ge=0)] | None = None  # share, on data that a member holds out


class Closed(_Model):
    """Nobody joins: the members are those in the manifest."""

    kind: Literal["closed"] = "closed"


class ByInvitation(_Model):
    """Whoever has an invitation of one of `issuers` joins; see `federated.invitation`."""

    kind: Literal["invitation"]
    issuers: Sequence[str]

    @field_validator("issuers")
    @classmethod
    def _unique_peer_ids(cls, issuers: Sequence[str]) -> tuple[str, ...]:
        """The issuers as base58 text in the order of their ids, whatever form they came in."""
        if not 1 <= len(issuers) <= MAX_ISSUERS:
            raise ValueError(f"a task has 1 to {MAX_ISSUERS} issuers, not {len(issuers)}")
        peers = _distinct(issuers)
        for peer in peers:
            if not can_vote(peer):
                raise ValueError(f"{peer} cannot invite: its id does not contain an Ed25519 key")
        return tuple(str(peer) for peer in peers)


class ByWork(_Model):
    """Whoever finds a nonce of `bits` zero bits joins; see `federated.rounds.admission`."""

    kind: Literal["work"]
    bits: Annotated[int, Field(ge=MIN_WORK, le=MAX_WORK)]


Admission = Annotated[Closed | ByInvitation | ByWork, Field(discriminator="kind")]


class DifferentialPrivacy(_Model):
    """Updates are clipped and noised before they leave their member; see `federated.privacy`."""

    kind: Literal["dp"] = "dp"
    clip: Annotated[float, Field(gt=0, le=1e6)]  # L2 norm of a delta
    noise: Annotated[float, Field(gt=0, le=1e6)]  # standard deviation at each value, in clips
    delta: Annotated[float, Field(gt=0, lt=1)]  # probability with which epsilon need not hold
    epsilon: Annotated[float, Field(gt=0)]  # what all updates of a member in the task may come to

    @model_validator(mode="after")
    def _worth_one_update(self) -> DifferentialPrivacy:
        if self.cost(1) > self.epsilon:
            raise ValueError(
                f"one update costs an epsilon of {self.cost(1):.3g}, more than the {self.epsilon:g} in all: "
                "raise noise or epsilon"
            )
        return self

    def cost(self, updates: int) -> float:
        """The ε that so many updates of one member come to.

        Two data sets of a member, however they differ, lead to deltas at most 2 · clip apart.
        """
        return epsilon(rdp(self.noise / 2, times=updates), self.delta)


class SecureSums(_Model):
    """No update is ever seen, only sums of them; see `federated.sums`."""

    range: Annotated[float, Field(gt=0, le=1e6)]  # each value of a delta is clipped to ± this
    holders: Annotated[int, Field(ge=MIN_HOLDERS, le=MAX_HOLDERS)] = 9  # that shares are dealt to
    group: Annotated[int, Field(ge=3, le=MAX_MEMBERS)] | None = None  # members in a sum; None for all

    @property
    def mode(self) -> str:
        """What the task has chosen instead of `robust`, in which updates are seen and judged."""
        return "private" if self.group is None else "grouped"

    def most_sums(self, members: int) -> int:
        """How many sums so many members make."""
        return 1 if self.group is None else members // self.group


class TaskManifest(_Model):
    """One training task: who takes part, which plugins do the work, how a round goes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    members: Sequence[str]
    preprocessor: PluginRef
    trainer: PluginRef
    aggregator: PluginRef
    validator: PluginRef
    compressor: PluginRef | None = None  # without one, updates travel as they are
    privacy: DifferentialPrivacy | None = None  # without it, updates tell of the data what they tell
    sums: SecureSums | None = None  # without it, every member sees every update
    policy: RoundPolicy = RoundPolicy()
    max_update_bytes: Annotated[int, Field(ge=1, le=MAX_UPDATE)] = 1 << 26
    committee: Annotated[int, Field(ge=MIN_COMMITTEE, le=MAX_COMMITTEE)] = MAX_COMMITTEE
    admission: Admission = Closed()
    max_members: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = MAX_MEMBERS  # those who left included

    @field_validator("members")
    @classmethod
    def _unique_peer_ids(cls, members: Sequence[str]) -> tuple[str, ...]:
        """The members as base58 text in the order of their ids, whatever form they came in."""
        if not 1 <= len(members) <= MAX_MEMBERS:
            raise ValueError(f"a task has 1 to {MAX_MEMBERS} members, not {len(members)}")
        return tuple(str(peer) for peer in _distinct(members))

    @model_validator(mode="after")
    def _room_for_joining(self) -> TaskManifest:
        if isinstance(self.admission, Closed):
            if self.max_members != MAX_MEMBERS:
                raise ValueError(
                    "max_members is for tasks that admit members; set admission, or leave it out"
                )
        elif self.max_members < len(self.members):
            raise ValueError(f"max_members is {self.max_members}, fewer than the {len(self.members)} listed")
        return self

    @model_validator(mode="after")
    def _can_be_summed(self) -> TaskManifest:
        """What goes with secure sums: nothing that needs an update by itself."""
        sums = self.sums
        if sums is None:
            return self
        members, faults = len(self.members), holder_faults(min(sums.holders, len(self.members)))
        left_out = members - ceil(self.policy.quorum * members)
        strangers = [text for text in self.members if not can_vote(PeerId.parse(text))]
        refusals = {
            "a compressor: what is compressed cannot be added up": self.compressor is not None,
            "max_staleness: a late update is in no sum": self.policy.max_staleness > 0,
            "quality_every: nobody sees what one update is worth": self.policy.quality_every > 0,
            "admission by work: who has more machines could be most of the holders": self.admission.kind
            == "work",
            f"a committee: all members vote, at most {MAX_COMMITTEE} (see max_members)": self.committee
            < self.most_members,
            f"fewer than {MIN_HOLDERS} members": members < MIN_HOLDERS,
            f"rounds that are no multiple of {STEP}: a sum takes as many": self.rounds % STEP > 0,
            f"a quorum without {left_out} members: {faults} holders may be missing": left_out > faults,
            f"groups of {sums.group}: {faults} bad members leave fewer than two others in one": sums.group
            is not None
            and sums.group < faults + 2,
            f"groups of {sums.group}: {members} members make no two": sums.group is not None
            and members < 2 * sums.group,
        }
        found = next((text for text, is_so in refusals.items() if is_so), None)
        if found is not None:
            raise ValueError(f"sums do not go with {found}")
        if strangers:
            raise ValueError(f"{strangers[0]} cannot hold shares: its id does not contain an Ed25519 key")
        return self

    @cached_property
    def peer_ids(self) -> tuple[PeerId, ...]:
        """The members' ids, sorted; a member's place here is its index in the task."""
        return tuple(PeerId.parse(text) for text in self.members)

    @cached_property
    def issuer_ids(self) -> tuple[PeerId, ...]:
        """Who may invite, sorted; nobody unless admission is by invitation."""
        if not isinstance(self.admission, ByInvitation):
            return ()
        return tuple(PeerId.parse(text) for text in self.admission.issuers)

    @property
    def is_open(self) -> bool:
        """Whether peers may join that are not listed."""
        return not isinstance(self.admission, Closed)

    @property
    def most_members(self) -> int:
        """How many numbers can be handed out."""
        return self.max_members if self.is_open else len(self.members)

    @property
    def seats(self) -> int:
        """How many members vote in a round: all of them, or a committee that is drawn for each round."""
        return min(self.committee, len(self.members))

    @property
    def max_model_bytes(self) -> int:
        """Of a model with what the aggregator keeps in it: compressed updates may be far smaller than it."""
        return self.max_update_bytes if self.compressor is None else MAX_UPDATE

    @cached_property
    def task_id(self) -> TaskId:
        """SHA-256 of the canonical bytes."""
        return TaskId(hashlib.sha256(self.canonical()).digest())

    def canonical(self) -> bytes:
        """The canonical JSON, UTF-8; `parse_manifest` reads it back.

        The committee is left out when it is everybody, however many may join: a task is the same
        whatever limit it is under. A task that nobody joins says nothing of joining, and one in which late
        updates do not count, or are not compressed, private or summed, nothing of that.
        """
        excluded = set() if self.is_open else {"admission", "max_members"}
        if self.committee >= self.most_members:
            excluded.add("committee")
        excluded |= {name for name in ("compressor", "privacy", "sums") if getattr(self, name) is None}
        value = self.model_dump(mode="json", exclude=excluded)
        for name in ("max_staleness", "quality_every"):
            if not value["policy"][name]:
                del value["policy"][name]
        if value["policy"]["max_loss_rise"] is None:
            del value["policy"]["max_loss_rise"]
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()


def holder_faults(holders: int) -> int:
    """How many of so many holders of shares may be bad, be they silent or lying."""
    return (holders - 1) // 4


def can_vote(peer: PeerId) -> bool:
    """Whether the id of `peer` contains an Ed25519 key, so that anybody can check what it signs."""
    key = peer.public_key()
    return key is not None and key.type is KeyType.ED25519


def _distinct(texts: Sequence[str]) -> list[PeerId]:
    """The peers with these ids, sorted. Raises `ValueError` for what is no id, or is listed twice."""
    try:
        peers = sorted(PeerId.parse(text) for text in texts)
    except InvalidKey as exc:
        raise ValueError(str(exc)) from exc
    for peer, following in pairwise(peers):
        if peer == following:
            raise ValueError(f"{peer} is listed twice")
    return peers


def parse_manifest(data: bytes) -> TaskManifest:
    """The manifest in JSON `data`. Raises `ManifestError` with one line that names the field."""
    if len(data) > MAX_MANIFEST:
        raise ManifestError(f"{len(data)} bytes are over the limit of {MAX_MANIFEST}")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        if not isinstance(value, dict):
            raise ManifestError("not a JSON object")
        return TaskManifest.model_validate(value)
    except ManifestError:
        raise
    except ValidationError as exc:
        raise ManifestError(first_problem(exc)) from exc
    except RecursionError as exc:
        raise ManifestError("not JSON: nested too deeply") from exc
    except ValueError as exc:  # JSONDecodeError, UnicodeDecodeError, and what the two hooks raise
        raise ManifestError(f"not JSON: {exc}") from exc


def first_problem(exc: ValidationError) -> str:
    """The first problem that pydantic found, in one line: field, what is wrong, how many more."""
    errors = exc.errors(include_url=False)
    steps = errors[0]["loc"][:MAX_PATH]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    text = errors[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{path.lstrip('.')}: {text}{more}" if path else text + more


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ManifestError(f"{next(name for name in names if names.count(name) > 1)}: is given twice")
    return value


def _no_constant(text: str) -> object:
    raise ManifestError(f"not JSON: {text} is not a number")
