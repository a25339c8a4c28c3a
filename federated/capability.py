"""What this peer can do, measured: first by a short benchmark, from then on by the work that it does.

    steps/s      of its trainings                                      see `federated.pace`
    bytes down   of blobs that came from others, in the time in which any was on its way to come
    bytes up     of blobs for others, in the busiest seconds: a lower bound, since nobody asks all the time
    aggregated   bytes of the updates that were averaged, in the time that took

Each is an exponentially weighted average. What a member that sends slowly does to the second is not told
apart from our own line. A rate that is not known yet is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from federated.pace import WEIGHT, Pace
from federated.rounds.messages import MAX_CORES, MAX_COUNT, MAX_RATE, Capability

MIN_TRANSFER = 64 * 1024  # bytes; what is smaller tells of the round trip, not of the line
MIN_AVERAGED = 1 << 20  # bytes; what is smaller tells of calls and threads, not of the averaging
CHANGE = 1.25  # a rate that is so many times another one is news
BENCHMARK_TIME = 0.1  # seconds; a repetition more than that at most, each a few milliseconds
BENCHMARK_SIZE = 1 << 20  # bytes of an array
BENCHMARK_ARRAYS = 4
UP_WINDOW = 1.0  # seconds at least over which bytes up are counted

Clock = Callable[[], float]


def benchmark(clock: Clock) -> float:
    """Bytes a second in averaging arrays as aggregators do: float32, element by element, in float64."""
    arrays = [np.full(BENCHMARK_SIZE // 4, float(at), np.float32) for at in range(BENCHMARK_ARRAYS)]
    done, begin = 0, clock()
    while True:
        total = np.zeros(arrays[0].shape, np.float64)
        for array in arrays:
            total += array.astype(np.float64) / BENCHMARK_ARRAYS
        total.astype(np.float32)
        done += sum(array.nbytes for array in arrays)
        if (passed := clock() - begin) >= BENCHMARK_TIME:
            return done / passed


class Rate:
    """An average of bytes a second, in which the newest observation has its `WEIGHT`."""

    def __init__(self) -> None:
        self.value = 0.0

    def observe(self, size: float, seconds: float) -> None:
        """So much work took so long; too short to be measured is no observation."""
        if size > 0 and seconds > 0:
            rate = size / seconds
            self.value += WEIGHT * (rate - self.value) if self.value else rate


class Transfers:
    """Blobs on their way to us, some at a time: what came, and how long any that came was waited for.

    Only what did come counts: a holder that is gone costs time, and says nothing about the line.
    """

    def __init__(self, clock: Clock) -> None:
        self._rate = Rate()
        self._clock = clock
        self._open = 0
        self._size = 0
        self._seconds = 0.0
        self._last = 0.0  # when one came

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._rate.value

    @contextmanager
    def expect(self, size: int) -> Iterator[None]:
        """A blob of `size` bytes is fetched in the body, which raises when it does not come."""
        if size < MIN_TRANSFER:
            yield
            return
        begin = self._clock()
        self._open += 1
        try:
            yield
            now = self._clock()
            self._seconds += now - max(begin, self._last)
            self._size, self._last = self._size + size, now
        finally:
            self._open -= 1
            if not self._open:
                self._rate.observe(self._size, self._seconds)
                self._size, self._seconds = 0, 0.0


class Meter:
    """Measures one peer in one task.

    `clock` is monotonic, in seconds; `memory` is in bytes.
    """

    def __init__(self, clock: Clock, pace: Pace, *, memory: int, cores: int) -> None:
        self.down = Transfers(clock)
        self._clock = clock
        self._pace = pace
        self._averaged = Rate()
        self._memory = min(memory, MAX_COUNT)
        self._cores = min(cores, MAX_CORES)
        self._up = 0.0
        self._sent = 0  # bytes, when the window over which they are counted began
        self._since = clock()
        self._told: Capability | None = None

    def averaged(self, rate: float) -> None:
        """`benchmark` came to so many bytes a second: the first one, or while there is nothing to average."""
        self._averaged.observe(rate, 1.0)

    @contextmanager
    def averaging(self, size: int) -> Iterator[None]:
        """Updates of `size` bytes in all are averaged in the body; also in another thread."""
        begin = self._clock()
        yield
        if size >= MIN_AVERAGED:
            self._averaged.observe(size, self._clock() - begin)

    def sent(self, total: int) -> None:
        """So many bytes of blobs were sent to others until now. More than before counts in full."""
        now = self._clock()
        size, seconds = total - self._sent, now - self._since
        if seconds >= UP_WINDOW:
            self._sent, self._since = total, now
            if size >= MIN_TRANSFER:
                rate = size / seconds
                self._up = max(rate, self._up + WEIGHT * (rate - self._up))

    def news(self) -> Capability | None:
        """What this peer can do, when that is not what it was at the last news; its round is 0."""
        found = Capability(
            round=0,
            steps_per_second=min(self._pace.steps_per_second, MAX_RATE),
            bytes_down=min(self.down.rate, MAX_RATE),
            bytes_up=min(self._up, MAX_RATE),
            aggregate_bytes_per_second=min(self._averaged.value, MAX_RATE),
            memory=self._memory,
            cores=self._cores,
        )
        if self._told is not None and not any(map(_differ, _rates(self._told), _rates(found))):
            return None
        self._told = found
        return found


def _rates(capability: Capability) -> tuple[float, ...]:
    return (
        capability.steps_per_second,
        capability.bytes_down,
        capability.bytes_up,
        capability.aggregate_bytes_per_second,
    )


def _differ(old: float, new: float) -> bool:
    return max(old, new) > CHANGE * min(old, new)
