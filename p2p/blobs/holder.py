"""One holder of the blob that is being fetched: what it has, what it was asked for, how fast it answers."""

from __future__ import annotations

from p2p.peer_id import PeerId

CHUNK_TIMEOUT = 5.0  # seconds for one chunk, dialing included; at 256 KiB the slowest holder has 52 KB/s
POLL_INTERVAL = 1.0  # seconds after which one that is asked for nothing is asked what it has
FIRST_WINDOW = 4  # chunks; 1 MiB, what most networks have on their way at once
MAX_WINDOW = 32  # chunks asked of one holder at once: 8 MiB, 500 Mbit/s over a round trip of 130 ms
QUEUE_TIME = 1.0  # seconds between a chunk's request and its coming; what is beyond is asked in vain


class Holder:
    """The state of one holder that is being asked."""

    def __init__(self, peer: PeerId, everything: int, now: float) -> None:
        self.peer = peer
        self.asked: dict[int, float] = {}  # chunk -> when it was asked for; the longest wait comes first
        self.window = FIRST_WINDOW  # chunks that are asked for at once
        self.deadline: float | None = None  # when something has to have come
        self.needed_at = now  # when it last was of use
        self.partial = False  # whether it told that it does not have everything
        self._has = everything
        self._told = 0  # what it claims to have
        self._wants = 0  # that it has not answered by its haves
        self._polled = False
        self._heard = now

    @property
    def has(self) -> int:
        """The chunks that it has, as far as we know: all, until it tells."""
        return self._has

    @property
    def idle(self) -> bool:
        """Whether it has nothing to answer."""
        return not self.asked and not self._polled

    @property
    def poll_time(self) -> float:
        """When it is to be asked what it has, if it stays idle."""
        return self._heard + POLL_INTERVAL

    def room(self, share: int, free: int) -> int:
        """Chunks to ask for, `free` at most, of a `share` in all: none until it is half of what may be."""
        window = min(self.window, share)
        room = min(window - len(self.asked), free)
        return room if 2 * room >= window else 0

    def ask(self, indexes: list[int], now: float) -> None:
        """A want for these chunks is sent; for none: what does it have?"""
        if self.idle:
            self.deadline = now + CHUNK_TIMEOUT
        self._wants += 1
        if indexes:
            self.asked.update(dict.fromkeys(indexes, now))
            self.needed_at = now
        else:
            self._polled = True

    def answered(self, index: int, now: float) -> None:
        """A true chunk, or an honest no, came for `index`."""
        waited = now - self.asked.pop(index)
        if waited < QUEUE_TIME:
            self.window = min(MAX_WINDOW, self.window + 1)
        else:
            self.window = max(2, self.window - 1)
        self._progress(now)

    def lacks(self, index: int) -> bool:
        """It does not have this chunk; False when it told the contrary before."""
        if self._told >> index & 1:
            return False
        self._has &= ~(1 << index)
        return True

    def tell(self, chunks: int, everything: int, now: float) -> bool:
        """It told what it has; False when that makes no sense."""
        if chunks & ~everything or not self._wants:
            return False
        self._wants -= 1
        self._has = self._told = chunks
        self.partial = chunks != everything
        if self._polled:  # it was idle when it was polled, so this is the answer
            self._polled = False
            self._progress(now)
        return True

    def _progress(self, now: float) -> None:
        self._heard = now
        self.deadline = None if self.idle else now + CHUNK_TIMEOUT
