"""What is kept of a run beside its messages: samples each second, DHT operations, rounds."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import nan

KINDS = ("find", "put", "get")
_HASH = 8  # bytes of a result's SHA-256 that are kept


def short_hash(data: bytes) -> bytes:
    """The first 8 bytes of the SHA-256: enough to tell results apart."""
    return sha256(data).digest()[:_HASH]


class PerSecond:
    """Counts of something by virtual second."""

    def __init__(self) -> None:
        self.counts = array("Q")
        self.total = 0

    def add(self, now: float, count: int = 1) -> None:
        """`count` more of them at the time `now`."""
        missing = int(now) + 1 - len(self.counts)
        if missing > 0:
            self.counts.extend((0,) * missing)
        self.counts[int(now)] += count
        self.total += count


class Spread:
    """Smallest, median and largest of something over the nodes, sample by sample."""

    def __init__(self) -> None:
        self.low, self.median, self.high = array("H"), array("H"), array("H")
        self.last = array("H")  # the latest sample as a whole, ascending

    def add(self, values: Sequence[int]) -> None:
        """One more sample; zeros when there is nobody."""
        self.last = array("H", sorted(values))
        ordered = self.last or array("H", (0,))
        self.low.append(ordered[0])
        self.median.append(ordered[len(ordered) // 2])
        self.high.append(ordered[-1])


class Percentiles:
    """How scores are spread over pairs of peers, sample by sample; NaN when there is nobody."""

    def __init__(self) -> None:
        self.low, self.fifth, self.median, self.high = array("d"), array("d"), array("d"), array("d")

    def add(self, values: Sequence[float]) -> None:
        """One more sample."""
        ordered = sorted(values) or [nan]
        last = len(ordered) - 1
        self.low.append(ordered[0])
        self.fifth.append(ordered[last // 20])
        self.median.append(ordered[last // 2])
        self.high.append(ordered[last])


class Scores:
    """What gossipsub thinks of peers, every few virtual seconds, as honest nodes see them."""

    def __init__(self) -> None:
        self.times = array("d")
        self.honest = Percentiles()
        self.adversaries = Percentiles()


class Samples:
    """The network once per virtual second."""

    def __init__(self) -> None:
        self.times = array("d")
        self.running = array("I")
        self.degree = Spread()  # connections of a running node
        self.mesh = Spread()  # mesh peers of a subscribed node, for each of its topics
        self.edges = array("H")  # at the end: pairs of connected nodes, the lower one first


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A DHT operation under way; `expected` is the hash of the right result, if it is known."""

    node: int
    kind: str
    began: float
    expected: bytes | None


class Operations:
    """The DHT operations that ended, each at the same index of every array; those under way in a dict."""

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.kinds = array("B")  # index in `KINDS`
        self.nodes = array("H")
        self.ends = array("d")  # virtual seconds
        self.seconds = array("f")
        self.hops = array("H")
        self.ok = array("B")
        self.results = bytearray()  # 8 bytes each
        self.pending: dict[int, Pending] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def add(
        self,
        number: int,
        *,
        kind: str,
        node: int,
        at: float,
        seconds: float,
        hops: int,
        ok: bool,
        result: bytes,
    ) -> None:
        """One that ended. It is not ok with another result than the one that was expected."""
        began = self.pending.pop(number, None)
        found = short_hash(result)
        if began is not None and began.expected is not None:
            ok = ok and found == began.expected
        self.numbers.append(number)
        self.kinds.append(KINDS.index(kind))
        self.nodes.append(node)
        self.ends.append(at)
        self.seconds.append(seconds)
        self.hops.append(min(hops, 0xFFFF))
        self.ok.append(ok)
        self.results += found

    def result(self, index: int) -> bytes:
        """The hash of a result."""
        return bytes(self.results[_HASH * index : _HASH * (index + 1)])


@dataclass(slots=True, kw_only=True)
class Round:
    """A round as the honest nodes report it."""

    task: str
    number: int
    digest: bytes  # of the first report; others must not differ
    skipped: bool
    participants: int
    first: float  # virtual seconds of the first and the last report
    last: float
    reports: int = 0
    accuracy: array[float] = field(default_factory=lambda: array("d"))  # of the nodes that measured it
    loss: array[float] = field(default_factory=lambda: array("d"))


class Rounds:
    """The rounds of all tasks, and who takes part in them."""

    def __init__(self) -> None:
        self.rounds: dict[tuple[str, int], Round] = {}
        self.members: dict[str, dict[int, None]] = {}
        self.finished: dict[str, dict[int, None]] = {}

    def of(self, task: str) -> list[Round]:
        """The rounds of a task in order."""
        return [self.rounds[key] for key in sorted(self.rounds) if key[0] == task]

    def tasks(self) -> list[str]:
        """The names of all tasks."""
        return sorted({**self.members, **self.finished, **{task: {} for task, _ in self.rounds}})
