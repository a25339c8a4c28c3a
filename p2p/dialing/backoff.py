"""How long an address that failed is left alone: doubling from half a second to a minute."""

from __future__ import annotations

from multiaddr import Multiaddr

BACKOFF_FIRST = 0.5  # seconds an address is left alone after its first failure, doubling
BACKOFF_MAX = 60.0  # seconds
BACKOFF_ENTRIES = 4096  # addresses remembered as failing


class Backoff:
    """How long a failing address is left alone."""

    def __init__(self) -> None:
        self._failures: dict[Multiaddr, tuple[int, float]] = {}

    def remaining(self, address: Multiaddr, now: float) -> float:
        """Seconds until `address` may be dialed again; 0 when it may."""
        _, until = self._failures.get(address, (0, now))
        return max(0.0, until - now)

    def failed(self, address: Multiaddr, now: float) -> None:
        """Doubles the wait for `address`."""
        count, _ = self._failures.pop(address, (0, 0.0))
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(count, 10))
        self._failures[address] = (count + 1, now + delay)
        while len(self._failures) > BACKOFF_ENTRIES:
            self._failures.pop(next(iter(self._failures)))

    def succeeded(self, address: Multiaddr) -> None:
        """Forgets earlier failures of `address`."""
        self._failures.pop(address, None)
