"""The past of a block that the user trusts: gathered backwards, so that it is known by hashes alone.

    task id ←── block 1 ←── … ←── block r − 1 ←── block r     its hash is the user's word
               ←──────────── gathered in this direction ───

Each block names the one before it, so the first certificate of a false past is noticed, whoever sends it.
Without that word a chain is checked by its signatures. Those convince as long as no quorum of members of
long ago, who have nothing to lose in the task any more, makes up another past.
Source: Buterin, "Proof of Stake: How I Learned to Love Weak Subjectivity", 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federated.manifest import MAX_ROUNDS
from federated.rounds.chain import Head
from federated.rounds.messages import HASH_SIZE, Certificate
from p2p.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedBlock:
    """The round and the hash of a block that the user knows to be certified."""

    round: int
    block: bytes


def parse_trusted_block(text: str) -> TrustedBlock:
    """The block in `round:hash`, the hash in hexadecimal. Raises `InvalidInput`."""
    number, _, digest = text.partition(":")
    try:
        block = TrustedBlock(round=int(number), block=bytes.fromhex(digest))
    except ValueError as exc:
        raise InvalidInput(f"not round:hash: {text[:80]!r}") from exc
    if not 1 <= block.round <= MAX_ROUNDS or len(block.block) != HASH_SIZE:
        raise InvalidInput(f"not a round and a hash of {2 * HASH_SIZE} digits: {text[:80]!r}")
    return block


class TrustedPast:
    """The certificates up to `trusted`, as they come; `start` is the head before round 1."""

    def __init__(self, start: Head, trusted: TrustedBlock) -> None:
        self._start = start
        self._wanted = trusted
        self._found: list[Certificate] = []  # the newest first

    @property
    def is_complete(self) -> bool:
        """Whether they reach back to round 1."""
        return self._wanted.round == 0

    def next_range(self, count: int) -> tuple[int, int]:
        """(first round, number of rounds) of the next `count` certificates, or fewer, to ask for."""
        first = max(1, self._wanted.round - count + 1)
        return first, self._wanted.round - first + 1

    def receive(self, certificates: Sequence[Certificate]) -> bool:
        """Takes what was asked for, in its order; whether it belongs to the past of the trusted block."""
        for certificate in reversed(certificates):
            if self.is_complete or certificate.round != self._wanted.round:
                continue
            if certificate.block.hash != self._wanted.block:
                return False
            self._found.append(certificate)
            self._wanted = TrustedBlock(round=certificate.round - 1, block=certificate.block.parent)
        return True

    def head(self) -> Head | None:
        """The head that all of them lead to; None when they do not begin where the task does."""
        head = self._start
        for certificate in self.certificates():
            block = certificate.block
            if (block.parent, block.base) != (head.block, head.model):
                return None
            head = head.after(certificate)
        return head

    def certificates(self) -> list[Certificate]:
        """All of them, the oldest first."""
        return self._found[::-1]
