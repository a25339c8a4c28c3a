"""Which chunks to ask for next: rarest first, and each peer from a place of its own.

Sets of chunks are integers with bit i for chunk i. Only what holders told that are still fetching counts:
who has everything makes nothing rare. Source: Cohen 2003, "Incentives Build Robustness in BitTorrent", 2.4.
"""

from __future__ import annotations

from collections.abc import Iterable


def by_rarity(everything: int, partial_holders: Iterable[int]) -> list[int]:
    """`everything` in parts: the chunks that none of these holders has, that one has, that two have, …"""
    at_least = [everything]  # [k]: the chunks that k of them have
    for chunks in partial_holders:
        at_least.append(0)
        for k in range(len(at_least) - 1, 0, -1):
            at_least[k] |= at_least[k - 1] & chunks
    return [more & ~less for more, less in zip(at_least, [*at_least[1:], 0], strict=True)]


def pick(candidates: int, classes: Iterable[int], start: int, count: int) -> list[int]:
    """Up to `count` of the candidates: of the first class first; within one in order, from `start` on."""
    picked: list[int] = []
    for chunks in classes:
        chosen = candidates & chunks
        behind = chosen >> start << start
        for part in (behind, chosen ^ behind):
            while part and len(picked) < count:
                lowest = part & -part
                picked.append(lowest.bit_length() - 1)
                part ^= lowest
        if len(picked) == count:
            break
    return picked


class Budget:
    """The chunks that all fetches of a peer may have asked for and not yet written, shared evenly."""

    def __init__(self, chunks: int, least: int) -> None:
        self._chunks = chunks
        self._least = least  # of one fetch, however many there are
        self._fetches = 0

    @property
    def share(self) -> int:
        """The chunks of one fetch."""
        return max(self._least, self._chunks // max(1, self._fetches))

    def open(self) -> None:
        """A fetch begins."""
        self._fetches += 1

    def close(self) -> None:
        """A fetch is over."""
        self._fetches -= 1
