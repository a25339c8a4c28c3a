"""The tasks that are known to be there, and when to announce our own (sans-I/O).

    Hold ──→ announced soon, then every few minutes, unless another member has just done it
    Ask of anybody ──→ announced after a random while, unless another member is quicker
    Announce of others ──→ an entry ──15 minutes without another──→ gone
    Want ──→ Ask

A task of a thousand members is announced by a few of them: who hears it keeps still. What strangers can
make us keep is bounded: a peer that names many tasks loses its own oldest ones, never those of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from federated.directory.signed import Listing, open_listing
from federated.directory.wire import ANY, Announce, Ask, Body, Progress, decode
from p2p.errors import RemoteProtocolError
from p2p.gossipsub.events import Verdict
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

PERIOD = 120.0  # seconds from one announcement of a task to the next, at least; up to twice as many
LIFETIME = 900.0  # seconds for which a task is listed that nobody announces any more
SOON = 1.0  # seconds within which a new task is announced
SHARE = 0.1  # seconds of an answer's delay for each member; a message takes as long to get around
MAX_DELAY = 20.0  # seconds from a question to the last answer
GAP = 5.0  # seconds for which an announcement answers further questions
MAX_TASKS = 512  # listed; some 700 bytes each
MAX_PER_PEER = 32  # tasks that one peer can bring in
MAX_HOLDERS = 16  # remembered of one task: to ask them for its manifest
BURST = 64  # messages of one peer at once: it takes part in many tasks, and was just asked
RATE = 1.0  # messages a second of one peer after that
MAX_RATES = 1024  # peers whose rate is remembered; one that is forgotten has its burst again
FRESH = 60.0  # seconds from sending to expiry
CLOCK_SKEW = 30.0  # seconds by which a sender's clock may be ahead of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message that `judge` accepted."""

    sender: PeerId
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """We take part in a task, or are further in it."""

    envelope: bytes
    round: int
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """We take part in `task` no more."""

    task: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Somebody here looks for a task, or with `ANY` for all."""

    task: bytes


Event = Heard | Hold | Release | Want


@dataclass(slots=True)
class Entry:
    """One task that was announced: by `source` first, then by `holders` (oldest first)."""

    listing: Listing
    creator: PeerId
    envelope: bytes
    source: PeerId | None  # None: ourselves
    round: int = 0
    progress: Progress = Progress.RUNNING
    heard: float = -inf  # seconds; when it was announced last
    due: float = inf  # seconds; when it is for us to announce it
    holders: dict[PeerId, None] = field(default_factory=dict)


class Table:
    """The tasks of one network, as one peer knows them."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._entries: dict[bytes, Entry] = {}  # by task id, the one brought in first in front
        self._rates: dict[PeerId, tuple[float, float]] = {}  # messages left, counted when; oldest first

    def entries(self, now: float) -> list[Entry]:
        """The tasks that are there, the ones known for longest first."""
        return [entry for entry in self._entries.values() if self._is_alive(entry, now)]

    def entry(self, task: bytes, now: float) -> Entry | None:
        """The task with this id."""
        entry = self._entries.get(task)
        return entry if entry is not None and self._is_alive(entry, now) else None

    def judge(self, sender: PeerId, data: bytes, now: float, wall_time: float) -> Verdict:
        """Whether a message counts, and is passed on; `wall_time` in unix seconds. Asked once for each."""
        if not self._admit(sender, now):
            return Verdict.IGNORE
        try:
            body, expiry = decode(data)
            if isinstance(body, Announce):
                self._open(body.envelope)
        except RemoteProtocolError:
            return Verdict.REJECT
        fresh = wall_time <= expiry <= wall_time + FRESH + CLOCK_SKEW
        return Verdict.ACCEPT if fresh else Verdict.IGNORE

    def handle(self, event: Event, now: float) -> list[Body]:
        """What to say because of `event`."""
        match event:
            case Heard(sender=sender, body=Announce() as announce):
                self._learn(sender, announce, now)
            case Heard(body=Ask(task=task)):
                self._answer(task, now)
            case Hold():
                self._hold(event, now)
            case Release(task=task):
                self._entries.pop(task, None)
            case Want(task=task):
                return [Ask(task=task)]
        return []

    def next_deadline(self) -> float:
        """When `handle_timer` has something to say."""
        return min((entry.due for entry in self._entries.values()), default=inf)

    def handle_timer(self, now: float) -> list[Body]:
        """The announcements that are due."""
        said: list[Body] = []
        for entry in self._entries.values():
            if entry.due <= now:
                said.append(Announce(envelope=entry.envelope, round=entry.round, progress=entry.progress))
                entry.heard = now
                entry.due = self._next_turn(now)
        return said

    # Our own

    def _hold(self, event: Hold, now: float) -> None:
        listing, creator = open_listing(event.envelope)
        entry = self._entries.get(listing.task)
        if entry is None or entry.source is not None:
            known = entry
            entry = Entry(listing, creator, event.envelope, source=None, due=now + self._rng.uniform(0, SOON))
            if known is not None:
                entry.holders = known.holders
            self._entries[listing.task] = entry
        entry.round, entry.progress = event.round, event.progress

    def _answer(self, task: bytes, now: float) -> None:
        """Announces what was asked for after a while, in which others of a large task may do it."""
        for key, entry in self._entries.items():
            if entry.source is None and task in (ANY, key) and now >= entry.heard + GAP:
                wait = min(SHARE * entry.listing.members, MAX_DELAY)
                entry.due = min(entry.due, now + self._rng.uniform(0, wait))

    def _next_turn(self, now: float) -> float:
        return now + PERIOD * self._rng.uniform(1, 2)

    # What others say

    def _learn(self, sender: PeerId, announce: Announce, now: float) -> None:
        listing, creator = self._open(announce.envelope)
        entry = self._entries.get(listing.task)
        if entry is None:
            self._make_room(sender, now)
            entry = self._entries[listing.task] = Entry(listing, creator, announce.envelope, source=sender)
        entry.heard = now
        entry.holders.pop(sender, None)
        entry.holders[sender] = None
        if len(entry.holders) > MAX_HOLDERS:
            del entry.holders[next(iter(entry.holders))]
        if entry.source is None:
            entry.due = self._next_turn(now)
        else:
            entry.round, entry.progress = announce.round, announce.progress

    def _open(self, envelope: bytes) -> tuple[Listing, PeerId]:
        """What an envelope says; one that is known is not verified again."""
        for entry in self._entries.values():
            if entry.envelope == envelope:
                return entry.listing, entry.creator
        return open_listing(envelope)

    def _make_room(self, sender: PeerId, now: float) -> None:
        """Drops what is over, then what `sender` brought in too much of, then what most came of."""
        for task in [task for task, entry in self._entries.items() if not self._is_alive(entry, now)]:
            del self._entries[task]
        if self._brought(sender) >= MAX_PER_PEER:
            self._drop_oldest(sender)
        others = [entry.source for entry in self._entries.values() if entry.source is not None]
        if len(others) >= MAX_TASKS:
            self._drop_oldest(max(dict.fromkeys(others), key=self._brought))

    def _brought(self, sender: PeerId) -> int:
        return sum(entry.source == sender for entry in self._entries.values())

    def _drop_oldest(self, source: PeerId) -> None:
        del self._entries[next(task for task, entry in self._entries.items() if entry.source == source)]

    @staticmethod
    def _is_alive(entry: Entry, now: float) -> bool:
        return entry.source is None or now < entry.heard + LIFETIME

    def _admit(self, sender: PeerId, now: float) -> bool:
        """Whether the sender says as little as it may; counts this message."""
        left, since = self._rates.pop(sender, (float(BURST), now))
        left = min(float(BURST), left + (now - since) * RATE)
        allowed = left >= 1
        self._rates[sender] = (left - allowed, now)
        if len(self._rates) > MAX_RATES:
            del self._rates[next(iter(self._rates))]
        return allowed
