"""NAT: who can be dialed by whom.

A node behind a NAT opens a way in by dialing out: to everybody ("full-cone": RFC 4787's endpoint-independent
filtering), to those whom it has dialed ("restricted": address-dependent filtering), or to nobody
("symmetric": each destination sees another port, so nobody knows which one to dial).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from sim.scenario.model import Nat as NatShare

MAX_DIALED = 4096  # remembered of each node behind a restricted NAT; a home router's table is about as long


class Nat:
    """The NATs of `nodes` nodes, drawn by the shares in `kinds`; the rest is open to all."""

    def __init__(self, kinds: Sequence[NatShare], nodes: int, rng: Random) -> None:
        self._kind = [self._draw(kinds, rng) for _ in range(nodes)] if kinds else []
        self._dialed: dict[int, dict[int, None]] = {}  # by whom that is behind a NAT, oldest first

    @staticmethod
    def _draw(kinds: Sequence[NatShare], rng: Random) -> str:
        drawn = rng.random()
        for kind in kinds:
            drawn -= kind.share
            if drawn < 0:
                return kind.kind
        return "open"

    def kind(self, node: int) -> str:
        """ "open", "full-cone", "restricted" or "symmetric"."""
        return self._kind[node] if self._kind else "open"

    def dial(self, source: int, target: int) -> bool:
        """Whether `source` gets through to `target`; either way it opens its own NAT as far as that goes."""
        if self.kind(source) in ("full-cone", "restricted"):
            dialed = self._dialed.setdefault(source, {})
            dialed.pop(target, None)
            dialed[target] = None
            if len(dialed) > MAX_DIALED:
                del dialed[next(iter(dialed))]
        match self.kind(target):
            case "open":
                return True
            case "full-cone":
                return target in self._dialed
            case "restricted":
                return source in self._dialed.get(target, {})
            case _:
                return False
