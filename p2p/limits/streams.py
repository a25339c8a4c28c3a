"""How many inbound streams of one protocol are served at once: to one peer, and to all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from p2p.peer_id import PeerId
from p2p.stream import Stream


class StreamLimit:
    """At most `per_peer` streams of one peer and `total` in all; one more is reset with `code`."""

    def __init__(self, per_peer: int, total: float = inf, *, code: int = 0) -> None:
        self.open: Counter[PeerId] = Counter()  # streams that are served now; nobody is in it with 0
        self._per_peer = per_peer
        self._total = total
        self._code = code

    @contextmanager
    def admitted(self, stream: Stream) -> Iterator[bool]:
        """Counts `stream` while the body runs; False when it is over the limit, reset, not to be served."""
        peer = stream.peer
        if self.open[peer] >= self._per_peer or self.open.total() >= self._total:
            stream.reset(self._code)
            yield False
            return
        self.open[peer] += 1
        try:
            yield True
        finally:
            self.open[peer] -= 1
            if not self.open[peer]:
                del self.open[peer]
