"""Transfers and holders of one blob back to back: a heap of events, no event loop, no bytes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from p2p.blobs.merkle import MerkleTree, PartialTree, all_chunks, chunk_count, leaf_hash, split
from p2p.blobs.picking import Budget
from p2p.blobs.transfer import (
    Action,
    Answered,
    Ask,
    Begin,
    Complete,
    Event,
    Failed,
    GiveUp,
    Leave,
    Save,
    Saved,
    Transfer,
)
from p2p.blobs.wire import Absent, Answer, Chunk, Haves, Lacking, Want
from p2p.peer_id import PeerId

LATENCY = 0.01  # seconds one way
CHUNK_TIME = 0.01  # seconds a holder needs for a chunk, unless it is a slow one


@dataclass
class Content:
    """A blob, its tree, and the true answers about it."""

    data: bytes

    def __post_init__(self) -> None:
        self.chunks = [bytes(chunk) for chunk in split(self.data)]
        self.tree = MerkleTree([leaf_hash(chunk) for chunk in self.chunks])
        self.root, self.size = self.tree.root, len(self.data)
        self.everything = all_chunks(self.size)

    def chunk(self, index: int) -> Chunk:
        return Chunk(index=index, proof=self.tree.proof(index), pieces=(self.chunks[index],))


class Holder:
    """An honest one: answers each want, in order, one chunk after the other."""

    delay = CHUNK_TIME

    def __init__(self, content: Content, has: int | None = None) -> None:
        self.content = content
        self._has = content.everything if has is None else has
        self.told: dict[PeerId, int] = {}
        self.busy_until: dict[PeerId, float] = {}
        self.wants = 0
        self.sent = 0

    @property
    def has(self) -> int:
        return self._has

    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        """What comes back, None for silence from here on. Raises `ConnectionError` when it hangs up."""
        if self.has != self.told.get(peer, self.content.everything) or not want.indexes:
            self.told[peer] = self.has
            yield Haves(chunks=self.has)
        for index in want.indexes:
            if self.has >> index & 1:
                self.sent += 1
                yield self.chunk(index)
            else:
                yield Lacking(index=index)

    def chunk(self, index: int) -> Chunk:
        return self.content.chunk(index)


class Slow(Holder):
    delay = 4.5  # just within the deadline


class Silent(Holder):
    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        yield None


class Gone(Holder):
    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        yield Absent()


class HangsUp(Holder):
    """After three chunks."""

    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        for answer in super().answers(peer, want):
            if self.sent > 3:
                raise ConnectionError
            yield answer


class Stops(HangsUp):
    """Says nothing more after three chunks."""

    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        try:
            yield from super().answers(peer, want)
        except ConnectionError:
            yield None


class Liar(Holder):
    """Every third chunk is false."""

    def chunk(self, index: int) -> Chunk:
        true = super().chunk(index)
        return true if self.sent % 3 else Chunk(index=index, proof=true.proof, pieces=(bytes(true.size),))


class TakesBack(Holder):
    """Tells that it has everything, and has nothing."""

    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        yield Haves(chunks=self.content.everything)
        for index in want.indexes:
            yield Lacking(index=index)


class HasNothing(Holder):
    """Says so, whenever it is asked."""

    @property
    def has(self) -> int:
        return 0


class Talks(Holder):
    """Tells what it has again and again, and nothing else."""

    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        while True:
            yield Haves(chunks=self.content.everything)


class SendsOthers(Holder):
    """Chunks that nobody asked for."""

    def answers(self, peer: PeerId, want: Want) -> Iterator[Answer | None]:
        for index in want.indexes:
            yield self.content.chunk((index + 1) % len(self.content.chunks))


@dataclass
class Fetcher(Holder):
    """One peer that fetches: a holder of what it has so far."""

    peer: PeerId
    content: Content
    holders: list[PeerId]
    start: int = 0
    have: int = 0
    budget: Budget = field(default_factory=lambda: Budget(96, 2))
    save_time: float = 0.0  # seconds until a chunk is saved

    def __post_init__(self) -> None:
        super().__init__(self.content)
        self.saved: dict[int, bytes] = {}
        self.left: dict[PeerId, str] = {}
        self.asked = 0  # chunks
        self.open = 0  # chunks asked for or not yet saved
        self.most_open = 0
        self.end: Complete | GiveUp | None = None
        self.ended_at = 0.0
        tree = PartialTree(self.content.root, chunk_count(self.content.size))
        for index in range(len(self.content.chunks)):
            if self.have >> index & 1:
                assert tree.add(index, (self.content.chunks[index],), self.content.tree.proof(index))
        self.transfer = Transfer(
            self.content.root,
            self.content.size,
            tree,
            self.have,
            self.holders,
            start=self.start,
            budget=self.budget,
        )

    @property
    def has(self) -> int:
        return self.have


class Network:
    """Runs fetchers among holders until all have ended."""

    def __init__(self, holders: dict[PeerId, Holder]) -> None:
        self.holders = holders
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def plan(self, at: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (at, next(self._count), call))

    def add(self, fetcher: Fetcher, at: float = 0.0, *, searching: bool = False) -> None:
        self.holders[fetcher.peer] = fetcher
        fetcher.budget.open()
        self.plan(at, lambda: self.tell(fetcher, Begin(searching=searching)))

    def tell(self, fetcher: Fetcher, event: Event) -> None:
        if isinstance(event, Answered) and event.holder in fetcher.left:
            actions = fetcher.transfer.handle(event, self.now)
            # who was left counts for nothing; what others were asked for may be late by now
            assert all(isinstance(action, Ask) for action in actions)
            self.perform(fetcher, actions)
            return
        self.perform(fetcher, fetcher.transfer.handle(event, self.now))

    def perform(self, fetcher: Fetcher, actions: list[Action]) -> None:
        for action in actions:
            assert fetcher.end is None
            match action:
                case Ask(holder=peer, want=want):
                    assert peer not in fetcher.left
                    fetcher.asked += len(want.indexes)
                    self.plan(self.now + LATENCY, lambda a=action: self._serve(fetcher, a.holder, a.want))
                case Leave(holder=peer, reason=reason):
                    fetcher.left[peer] = reason
                case Save(index=index, pieces=pieces):
                    data = b"".join(pieces)
                    assert index not in fetcher.saved
                    assert not fetcher.have >> index & 1
                    assert data == fetcher.content.chunks[index]
                    fetcher.saved[index] = data
                    self.plan(self.now + fetcher.save_time, lambda i=index: self._saved(fetcher, i))
                case Complete() | GiveUp():
                    fetcher.end, fetcher.ended_at = action, self.now
        transfer = fetcher.transfer
        fetcher.most_open = max(fetcher.most_open, transfer._open + transfer._unsaved)
        deadline = transfer.next_deadline
        if deadline is not None:
            self.plan(max(deadline, self.now), lambda: self._tick(fetcher))

    def _saved(self, fetcher: Fetcher, index: int) -> None:
        fetcher.have |= 1 << index
        self.tell(fetcher, Saved(count=1))

    def _tick(self, fetcher: Fetcher) -> None:
        deadline = fetcher.transfer.next_deadline
        if deadline is not None and self.now >= deadline:
            self.perform(fetcher, fetcher.transfer.handle_timer(self.now))
            after = fetcher.transfer.next_deadline
            assert after is None or after > self.now  # a timer that fires is dealt with

    def _serve(self, fetcher: Fetcher, peer: PeerId, want: Want) -> None:
        """Plans the answers to one want, behind those to the wants before it."""
        holder = self.holders.get(peer)
        if holder is None or peer in fetcher.left:
            self.plan(self.now, lambda: self.tell(fetcher, Failed(holder=peer, reason="is not there")))
            return
        holder.wants += 1
        at = max(self.now, holder.busy_until.get(fetcher.peer, 0.0))
        self._send(fetcher, peer, holder, holder.answers(fetcher.peer, want), at)

    def _send(
        self, fetcher: Fetcher, peer: PeerId, holder: Holder, answers: Iterator[Answer | None], at: float
    ) -> None:
        for count, answer in enumerate(_until_end(answers)):
            if answer is None or count > 200:
                holder.busy_until[fetcher.peer] = float("inf")
                return
            if holder.busy_until.get(fetcher.peer) == float("inf"):
                return
            event: Event
            if isinstance(answer, ConnectionError):
                event = Failed(holder=peer, reason="hung up")
            else:
                at += holder.delay if isinstance(answer, Chunk) else 0.0
                event = Answered(holder=peer, answer=answer)
            holder.busy_until[fetcher.peer] = at
            self.plan(at + LATENCY, lambda e=event: self.tell(fetcher, e))

    def run(self, fetchers: list[Fetcher], limit: float = 10_000.0) -> None:
        while self._heap and any(fetcher.end is None for fetcher in fetchers):
            at, _, call = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            assert self.now < limit, "the fetch does not end"
            call()


def _until_end(answers: Iterator[Answer | None]) -> Iterator[Answer | ConnectionError | None]:
    try:
        yield from answers
    except ConnectionError as exc:
        yield exc
