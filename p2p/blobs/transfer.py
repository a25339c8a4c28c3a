"""One fetch: asks several holders at once, verifies each chunk on arrival, gives to others what one fails at.

    Begin, HoldersFound ──▶ waiting ──▶ active: some chunks asked ──▶ true chunk ──▶ Save, ask for more
                              ▲             │                              └─ the last one ──▶ Complete
           more to ask than the active take │
                                            ├─ nothing left to ask: what others were asked for long ago
                                            ├─ nothing of use: asked what it has, now and then
                                            └─ false, silent, gone: Leave; its chunks are asked of others
                                                  └─ nobody left, nobody to be found: GiveUp

Chunks come in any order, the rarest first. A holder must deliver one true chunk in every `CHUNK_TIMEOUT`,
is asked for as many at once as it delivers in about a second, and once left is not asked again in this
fetch. Memory is bounded: no more is asked for than the share of a `Budget`, and what is to be saved counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from p2p.blobs.holder import CHUNK_TIMEOUT, Holder
from p2p.blobs.merkle import PartialTree, all_chunks, chunk_length
from p2p.blobs.picking import Budget, by_rarity, pick
from p2p.blobs.wire import MAX_WANTED, Absent, Answer, Chunk, Haves, Lacking, Pieces, Want
from p2p.peer_id import PeerId

MAX_ACTIVE = 8  # holders asked at once; more hardly gain anything, and each costs a stream
MAX_HOLDERS = 64  # holders of one fetch, found later ones included; three times what kademlia hands out
MAX_COPIES = 3  # holders that are asked for the same chunk at the end
HEDGE = 1.0  # seconds after which a chunk that one holder was asked for is asked of another, if that is idle
HEDGED = 2  # chunks that an idle holder takes over from others at once
STALL_TIMEOUT = (
    15.0  # seconds in which somebody has to have something of use; three times the time for a chunk
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The driver is ready. `searching`: whether `HoldersFound` may come, until `SearchEnded`."""

    searching: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldersFound:
    """These have the blob too, or a part of it."""

    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEnded:
    """No more holders will be found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """`holder` sent this."""

    holder: PeerId
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`holder` could not be reached, hung up or broke the protocol."""

    holder: PeerId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """So many of the chunks that were to be saved are where they belong."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send `want` to `holder`, behind those before it on its stream, or on a new one."""

    holder: PeerId
    want: Want


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Reset the stream to `holder`: it failed for `reason`."""

    holder: PeerId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Keep this chunk, which is true and came for the first time; then say `Saved`."""

    index: int
    pieces: Pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Every chunk is here, true and saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """No holder is left; one reason for each that was tried."""

    reasons: tuple[str, ...]


Event = Begin | HoldersFound | SearchEnded | Answered | Failed | Saved
Action = Ask | Leave | Save | Complete | GiveUp


@dataclass(slots=True)
class _Asked:
    """A chunk that is on its way."""

    copies: int  # holders that were asked for it and have not answered
    at: float  # when the last of them was asked

    @property
    def late_at(self) -> float:
        """When another holder is to be asked as well."""
        return self.at + HEDGE if self.copies < MAX_COPIES else inf


class Transfer:
    """Fetches the chunks that are not in `have` yet of the blob under `tree`, of `size` > 0 bytes.

    `holders` are asked in their order, for chunks from number `start` on. `Complete` or `GiveUp` comes last,
    and ends the fetch. Whoever drives it opens `budget` before and closes it after.
    """

    def __init__(
        self,
        root: bytes,
        size: int,
        tree: PartialTree,
        have: int,
        holders: Sequence[PeerId],
        *,
        start: int,
        budget: Budget,
    ) -> None:
        self._root = root
        self._size = size
        self._tree = tree
        self._everything = all_chunks(size)
        self._missing = self._everything & ~have
        self._unasked = self._missing
        self._start = start
        self._budget = budget
        self._searching = False
        self._known: dict[PeerId, None] = {}  # holders we were told of
        self._waiting: dict[PeerId, None] = {}  # those that were not asked yet
        self._active: dict[PeerId, Holder] = {}
        self._asked: dict[int, _Asked] = {}  # by chunk
        self._open = 0  # chunks asked for and not answered, copies included
        self._unsaved = 0
        self._classes = [self._everything]  # of chunks by rarity
        self._progress_at = 0.0  # when a chunk came that was missing
        self._reasons: list[str] = []
        self._over = False
        self._add(holders)

    @property
    def whole(self) -> bool:
        """Whether no chunk is missing."""
        return not self._missing

    @property
    def expects_chunks(self) -> bool:
        """Whether somebody was asked for a chunk and has not answered."""
        return bool(self._open)

    def is_idle(self, peer: PeerId) -> bool:
        """Whether this holder is being asked, and answered everything."""
        return peer in self._active and self._active[peer].idle

    @property
    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, if nothing comes before."""
        if self._over or not self._missing:
            return None
        times = [holder.deadline for holder in self._active.values() if holder.deadline is not None]
        helpers = self._everything if self._may_start() else 0  # the chunks that somebody could help with
        for holder in self._active.values():
            if holder.idle:
                times += [holder.poll_time, self._stall_time(holder)]
                helpers |= holder.has
        if helpers:
            times += [asked.late_at for index, asked in self._asked.items() if helpers >> index & 1]
        return min(times, default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`."""
        if self._over:
            return []
        actions: list[Action] = []
        match event:
            case Begin(searching=searching):
                self._searching, self._progress_at = searching, now
            case HoldersFound(holders=holders):
                self._add(holders)
            case SearchEnded():
                self._searching = False
            case Saved(count=count):
                self._unsaved -= count
            case Answered(holder=peer, answer=answer) if peer in self._active:
                actions = self._take(self._active[peer], answer, now)
            case Failed(holder=peer, reason=reason) if peer in self._active:
                actions = [self._leave(peer, reason)]
        return actions + self._go_on(now)

    def handle_timer(self, now: float) -> list[Action]:
        """Leaves who is silent or of no use, asks others for what is late, and idle ones what they have."""
        if self._over or not self._missing:
            return []
        actions: list[Action] = []
        for holder in list(self._active.values()):
            if holder.deadline is not None and now >= holder.deadline:
                actions.append(self._leave(holder.peer, f"sent nothing of use within {CHUNK_TIMEOUT:g} s"))
            elif holder.idle and now >= self._stall_time(holder):
                actions.append(self._leave(holder.peer, "had nothing of what is missing"))
        return actions + self._go_on(now)

    # What holders send

    def _take(self, holder: Holder, answer: Answer, now: float) -> list[Action]:
        match answer:
            case Chunk():
                return self._take_chunk(holder, answer, now)
            case Lacking(index=index):
                if index not in holder.asked or not holder.lacks(index):
                    return [self._leave(holder.peer, f"took chunk {index} back")]
                self._answered(holder, index, now)
            case Haves(chunks=chunks):
                if not holder.tell(chunks, self._everything, now):
                    return [self._leave(holder.peer, "told what it has when nobody asked, or nonsense")]
                self._sort()
            case Absent():
                return [self._leave(holder.peer, "does not have it")]
        return []

    def _take_chunk(self, holder: Holder, chunk: Chunk, now: float) -> list[Action]:
        index = chunk.index
        if index not in holder.asked or chunk.size != chunk_length(self._size, index):
            return [self._leave(holder.peer, "sent another chunk than was asked for")]
        if self._missing >> index & 1:
            if not self._tree.add(index, chunk.pieces, chunk.proof):
                return [self._leave(holder.peer, f"sent a false chunk {index}")]
            self._missing ^= 1 << index
            self._asked[index].at = inf  # whoever else was asked for it is not waited for
            self._unsaved += 1
            self._progress_at = now
            self._answered(holder, index, now)
            return [Save(index=index, pieces=chunk.pieces)]
        self._answered(holder, index, now)  # somebody was faster
        return []

    def _answered(self, holder: Holder, index: int, now: float) -> None:
        holder.answered(index, now)
        self._forget(index)

    def _forget(self, index: int) -> None:
        """One less is asked for this chunk."""
        asked = self._asked[index]
        asked.copies -= 1
        self._open -= 1
        if not asked.copies:
            del self._asked[index]
            self._unasked |= self._missing & 1 << index

    def _leave(self, peer: PeerId, reason: str) -> Leave:
        holder = self._active.pop(peer)
        for index in holder.asked:
            self._forget(index)
        self._sort()
        self._reasons.append(f"{peer.short} {reason}")
        return Leave(holder=peer, reason=reason)

    def _sort(self) -> None:
        partial = [holder.has for holder in self._active.values() if holder.partial]
        self._classes = by_rarity(self._everything, partial)

    # What to ask

    def _go_on(self, now: float) -> list[Action]:
        """Asks whoever can be asked for more; ends the fetch when there is nothing left to do."""
        if not self._missing:
            self._over = not self._unsaved
            return [Complete()] if self._over else []
        actions: list[Action] = []
        for holder in self._active.values():
            actions += self._ask(holder, now)
        for holder in self._active.values():
            if holder.idle:
                actions += self._help(holder, now)
        while self._may_start() and ((self._unasked and self._free > 0) or self._late(now)):
            peer = next(iter(self._waiting))
            del self._waiting[peer]
            holder = self._active[peer] = Holder(peer, self._everything, now)
            actions += self._ask(holder, now) or self._help(holder, now)
        if not (self._active or self._waiting or self._searching):
            self._over = True
            actions.append(GiveUp(reasons=tuple(self._reasons)))
        return actions

    def _ask(self, holder: Holder, now: float) -> list[Action]:
        """Asks for chunks that nobody was asked for."""
        share = -(-self._budget.share // len(self._active))
        count = min(holder.room(share, self._free), MAX_WANTED)
        if count <= 0:
            return []
        indexes = pick(self._unasked & holder.has, self._classes, self._start, count)
        for index in indexes:
            self._unasked ^= 1 << index
        return [self._want(holder, indexes, now)] if indexes else []

    def _help(self, holder: Holder, now: float) -> list[Action]:
        """Asks an idle holder for what others were asked for long ago, or for what it has."""
        late = [index for index in self._late(now) if holder.has >> index & 1][:HEDGED]
        if late:
            return [self._want(holder, late, now)]
        if now >= holder.poll_time:
            return [self._want(holder, [], now)]
        return []

    def _want(self, holder: Holder, indexes: list[int], now: float) -> Ask:
        holder.ask(indexes, now)
        self._open += len(indexes)
        for index in indexes:
            asked = self._asked.setdefault(index, _Asked(0, now))
            asked.copies, asked.at = asked.copies + 1, now
        want = Want(root=self._root, size=self._size, indexes=tuple(indexes))
        return Ask(holder=holder.peer, want=want)

    def _late(self, now: float) -> list[int]:
        """What was asked for long ago, the oldest first."""
        late = [(asked.at, index) for index, asked in self._asked.items() if now >= asked.late_at]
        return [index for _, index in sorted(late)]

    @property
    def _free(self) -> int:
        """Chunks that may still be asked for."""
        return self._budget.share - self._open - self._unsaved

    def _may_start(self) -> bool:
        return bool(self._waiting) and len(self._active) < MAX_ACTIVE

    def _stall_time(self, holder: Holder) -> float:
        """When an idle holder has been of no use for too long: at once, while others wait for its place."""
        if self._missing & holder.has:
            return inf  # too much is not saved yet, or enough others were asked for it
        waited_since = holder.needed_at if self._waiting else max(holder.needed_at, self._progress_at)
        return waited_since + STALL_TIMEOUT

    def _add(self, holders: Sequence[PeerId]) -> None:
        for peer in holders:
            if peer not in self._known and len(self._known) < MAX_HOLDERS:
                self._known[peer] = self._waiting[peer] = None
