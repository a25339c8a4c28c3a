"""One fetch: asks the holders in turn, verifies each chunk on arrival, goes on where the last one failed.

                    Begin
                      │
                      ▼
    ┌────────▶ ask the holder ──▶ chunk, true ──▶ was it the last one? ──▶ Complete
    │                 │                │ no: the same holder, within its deadline
    │                 ▼                ▼
    │     false, missing, silent,   (ask again once the request is answered)
    │     failed: Leave it
    │                 │
    └── a next holder ┴── none: GiveUp

Chunks come in order, so what is missing is always the tail, and memory is what was verified: never
more than the size the caller gave. A holder must deliver one true chunk in every `CHUNK_TIMEOUT`;
what it does instead costs that long at most, and it is not asked again in this fetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2p.blobs.merkle import chunk_count, chunk_length, verify_chunk
from p2p.blobs.wire import MAX_COUNT, Answer, Missing, Request
from p2p.errors import P2PError
from p2p.peer_id import PeerId

CHUNK_TIMEOUT = 5.0  # seconds for one chunk, dialing included; at 256 KiB the slowest holder has 52 KB/s
MAX_HOLDERS = 16  # holders tried in one fetch; kademlia hands out at most 20 providers


class BlobUnavailable(P2PError):
    """No holder gave the blob; `reasons` has one line for each that was tried."""

    def __init__(self, root: bytes, reasons: Sequence[str]) -> None:
        super().__init__(f"blob {root.hex()[:16]} is unavailable: {'; '.join(reasons) or 'no holder'}")
        self.root = root
        self.reasons = list(reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The driver is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """`holder` sent this for the request that is open."""

    holder: PeerId
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`holder` could not be reached, hung up or broke the protocol."""

    holder: PeerId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send `request` to `holder`, on the stream of the request before or on a new one."""

    holder: PeerId
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Reset the stream to `holder`: it failed for `reason`."""

    holder: PeerId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Every chunk is here and true."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """No holder is left; one reason for each that was tried."""

    reasons: tuple[str, ...]


Event = Begin | Answered | Failed
Action = Ask | Leave | Complete | GiveUp


class Transfer:
    """Fetches the blob `root` of `size` > 0 bytes from `holders`, in their order."""

    def __init__(self, root: bytes, size: int, holders: Sequence[PeerId]) -> None:
        self._root = root
        self._size = size
        self._count = chunk_count(size)
        self._holders = list(dict.fromkeys(holders))[:MAX_HOLDERS]  # the first is being asked
        self._chunks: list[bytes] = []
        self._asked = 0  # chunks that will be here when the open request is answered
        self._deadline: float | None = None
        self._reasons: list[str] = []

    @property
    def next_deadline(self) -> float | None:
        """When the holder that is being asked has to have sent its next chunk."""
        return self._deadline

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`; `Complete` or `GiveUp` comes last and ends the fetch."""
        if not isinstance(event, Begin) and [event.holder] != self._holders[:1]:
            return []  # from one that was left before
        match event:
            case Begin():
                return self._ask(now)
            case Answered(answer=answer):
                return self._take(answer, now)
            case Failed(reason=reason):
                return self._leave(reason, now)

    def handle_timer(self, now: float) -> list[Action]:
        """Leaves the holder when its time for a chunk is over."""
        if self._deadline is None or now < self._deadline:
            return []
        return self._leave(f"sent no chunk within {CHUNK_TIMEOUT:g} s", now)

    def _ask(self, now: float) -> list[Action]:
        if not self._holders:
            self._deadline = None
            return [GiveUp(reasons=tuple(self._reasons))]
        first = len(self._chunks)
        count = min(MAX_COUNT, self._count - first)
        self._asked = first + count
        self._deadline = now + CHUNK_TIMEOUT
        request = Request(root=self._root, size=self._size, first=first, count=count)
        return [Ask(holder=self._holders[0], request=request)]

    def _take(self, chunk: Answer, now: float) -> list[Action]:
        index = len(self._chunks)
        if isinstance(chunk, Missing):
            return self._leave("does not have it", now)
        if chunk.index != index or len(chunk.data) != chunk_length(self._size, index):
            return self._leave(f"sent another chunk instead of {index}", now)
        if not verify_chunk(self._root, self._count, index, chunk.data, chunk.proof):
            return self._leave(f"sent a false chunk {index}", now)
        self._chunks.append(chunk.data)
        if len(self._chunks) == self._count:
            self._deadline = None
            return [Complete(data=b"".join(self._chunks))]
        if len(self._chunks) == self._asked:
            return self._ask(now)
        self._deadline = now + CHUNK_TIMEOUT
        return []

    def _leave(self, reason: str, now: float) -> list[Action]:
        holder = self._holders.pop(0)
        self._reasons.append(f"{holder.short} {reason}")
        return [Leave(holder=holder, reason=reason), *self._ask(now)]
