"""How many inbound connections one address may have, and how fast it may open them.

An IPv6 customer owns a whole /56, so that is what counts as one address there; a /48 is one site.
Source: go-libp2p resource manager (connection limits per subnet) and its connection rate limiter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

MAX_BUCKETS = 4096  # addresses whose rate is remembered; a forgotten one has its burst again

Address = IPv4Address | IPv6Address
Group = tuple[int, int]  # (number of leading bits, those bits)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    updated: float  # seconds


class AddressLimits:
    """Admits inbound connections by the address they come from.

    `rate` is in new connections a second after `burst` at once; loopback is exempt unless
    `limit_loopback`. Every `admit` that returns None needs one `release` when the connection ends.
    """

    def __init__(
        self,
        *,
        per_address: int = 8,
        per_net: int = 64,
        rate: float = 0.2,
        burst: int = 16,
        limit_loopback: bool = False,
    ) -> None:
        self._per_address = per_address
        self._per_net = per_net
        self._rate = rate
        self._burst = burst
        self._limit_loopback = limit_loopback
        self._open: Counter[Group] = Counter()
        self._buckets: dict[Group, _Bucket] = {}  # least recently used first

    def admit(self, ip: Address | None, now: float) -> str | None:
        """Counts a connection from `ip`, or says why it is refused. None (no IP at all) is exempt."""
        if ip is None or self._is_exempt(ip):
            return None
        groups = _groups(ip)
        limits = (self._per_address, self._per_net)
        for group, limit in zip(groups, limits, strict=False):
            if self._open[group] >= limit:
                return f"it has {limit} connections already"
        if not self._take(groups[0], now):
            return f"it opens more than {self._rate:g} connections a second"
        self._open.update(groups)
        return None

    def release(self, ip: Address | None) -> None:
        """A connection from `ip` that was admitted has ended."""
        if ip is None or self._is_exempt(ip):
            return
        for group in _groups(ip):
            self._open[group] -= 1
            if self._open[group] <= 0:
                del self._open[group]

    def _is_exempt(self, ip: Address) -> bool:
        return ip.is_loopback and not self._limit_loopback

    def _take(self, group: Group, now: float) -> bool:
        bucket = self._buckets.pop(group, None) or _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.updated) * self._rate)
        bucket.updated = now
        self._buckets[group] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _groups(ip: Address) -> tuple[Group, ...]:
    """What `ip` counts for, the narrowest first."""
    if isinstance(ip, IPv4Address):
        return ((32, int(ip)),)
    return (56, int(ip) >> 72), (48, int(ip) >> 80)
