"""What one peer did in one topic, and what it should have brought there.

    first copy → P2, P3      copy soon after → P3      in our mesh → P1      left it in debt → P3b
    invalid message → P4

P3 is judged where the topic's rate is known, and by what came: a topic that is silent for once, or a
whole network that is, condemns nobody.
Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.1.md "Topic Parameter Calculation and Decay".
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from p2p.gossipsub.params import ScoreParams
from p2p.peer_id import PeerId

MAX_POWER = 4096  # seconds after which nothing is left of anything
MAX_RECENT = 4096  # messages of one topic within the window of near-first deliveries


class Conduct:
    """What one peer did in one topic."""

    __slots__ = ("_first", "_first_at", "deliveries", "failures", "invalid", "shortfall", "since")

    def __init__(self) -> None:
        self.since: float | None = None  # when it entered our mesh
        self._first = 0.0  # messages of which it brought the first copy, as of the second `_first_at`
        self._first_at = 0
        self.deliveries = 0.0  # messages that it brought, as the first or nearly, while in the mesh
        self.shortfall = 0.0  # share of the deliveries due to us that it withholds
        self.failures = 0.0  # shortfalls at which it left the mesh, squared
        self.invalid = 0.0  # messages

    def leave_mesh(self) -> None:
        """It left our mesh, and what it withheld is remembered (P3b)."""
        self.failures += self.shortfall**2
        self.since, self.deliveries, self.shortfall = None, 0.0, 0.0

    def leave(self) -> None:
        """It is gone: its credit is forgotten."""
        self.leave_mesh()
        self._first = 0.0

    def handle_first(self, params: ScoreParams, now: float) -> None:
        """It brought a message before everybody else."""
        second, first = int(now), self._first
        if second != self._first_at:
            if first:
                first *= powers(params.first_decay)[min(second - self._first_at, MAX_POWER)]
            self._first_at = second
        first += 1.0
        self._first = first if first < params.first_cap else params.first_cap

    def decay(self, params: ScoreParams, steps: int) -> None:
        """`steps` seconds passed for what counts against it."""
        least = params.decay_to_zero
        if self.failures:
            self.failures = decayed(self.failures, params.failure_decay, steps, least)
        if self.invalid:
            self.invalid = decayed(self.invalid, params.invalid_decay, steps, least)

    def is_blank(self, params: ScoreParams, now: float) -> bool:
        """Whether there is nothing to remember."""
        return self.since is None and not (self.failures or self.invalid or self.credit(params, now))

    def credit(self, params: ScoreParams, now: float) -> float:
        """P1 and P2, weighted. They decay when they are asked for: mostly nobody asks."""
        credit = 0.0
        if self._first:
            age = int(min(max(now - self._first_at, 0.0), MAX_POWER))
            first = self._first * powers(params.first_decay)[age]
            credit = params.first_weight * first if first >= params.decay_to_zero else 0.0
        if self.since is not None:
            credit += params.mesh_weight * min(max(now - self.since, 0.0), params.mesh_cap)
        return credit

    @property
    def guilty(self) -> bool:
        """Whether something counts against it."""
        return bool(self.shortfall or self.failures or self.invalid)

    def blame(self, params: ScoreParams) -> float:
        """P3, P3b and P4, weighted: zero or less."""
        withheld = params.shortfall_weight * self.shortfall**2 + params.failure_weight * self.failures
        return withheld + params.invalid_weight * self.invalid**2


class _Recent(NamedTuple):
    at: float
    givers: dict[PeerId, None]


class Rate:
    """A topic whose rate is known: who brought its latest messages, and what each mesh peer owes us."""

    __slots__ = ("_expected", "_params", "_recent", "_seen")

    def __init__(self, params: ScoreParams, rate: float) -> None:
        self._params = params
        self._expected = rate / (1.0 - params.delivery_decay)  # what the counter of who brings all comes to
        self._seen = 0.0  # messages that came, decaying as that counter does
        self._recent: dict[bytes, _Recent] = {}  # by message id, oldest first

    def __len__(self) -> int:
        return len(self._recent)

    def handle_first(self, conduct: Conduct, peer: PeerId, message_id: bytes, now: float) -> None:
        """`peer`, whose conduct this is, brought a message before everybody else."""
        self._seen += 1.0
        conduct.deliveries += conduct.since is not None
        self._recent[message_id] = _Recent(now, {peer: None})
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def is_near_first(self, peer: PeerId, message_id: bytes, now: float) -> bool:
        """Whether a copy from `peer` is as good as the first one: it came soon, and once."""
        recent = self._recent.get(message_id)
        if recent is None or peer in recent.givers or now > recent.at + self._params.delivery_window:
            return False
        recent.givers[peer] = None
        return True

    def handle_heartbeat(self, now: float, steps: int) -> None:
        """`steps` seconds passed: forgets the messages whose window is over."""
        self._seen *= powers(self._params.delivery_decay)[min(steps, MAX_POWER)]
        while self._recent:
            first = next(iter(self._recent))
            if self._recent[first].at + self._params.delivery_window >= now:
                return
            del self._recent[first]

    def judge(self, conduct: Conduct, now: float, steps: int) -> None:
        """`steps` seconds passed: what share of what it owes us a mesh peer withholds.

        Nothing while too little came to tell.
        """
        params = self._params
        conduct.deliveries *= powers(params.delivery_decay)[min(steps, MAX_POWER)]
        owed = params.delivery_share * min(self._expected, self._seen)
        conduct.shortfall = 0.0
        settled = conduct.since is not None and now - conduct.since >= params.delivery_activation
        if settled and owed >= params.delivery_least:
            conduct.shortfall = max(0.0, 1.0 - conduct.deliveries / owed)


@lru_cache(16)
def powers(factor: float) -> tuple[float, ...]:
    """The powers of `factor` up to `MAX_POWER`, multiplied out: the same on every machine."""
    found = [1.0]
    for _ in range(MAX_POWER):
        found.append(found[-1] * factor)
    return tuple(found)


def decayed(value: float, factor: float, seconds: int, least: float) -> float:
    """What is left of `value` after so many seconds, nothing when that is below `least`."""
    value *= powers(factor)[min(seconds, MAX_POWER)]
    return value if value >= least else 0.0
