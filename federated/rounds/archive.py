"""The certificates that led here, for members that are behind, and whose turn it is to send them.

Each certificate can be checked only by whoever has the one before it (`federated.rounds.chain`). So a
member that is several rounds behind is sent all those in between, a few at a time, and needs the model
of the last one only. One that is far behind fetches them from a holder instead.

Everybody has them, and one answer is enough. The members that are there answer in the order of their
numbers, from the one after the sender on, each a little later than the one before; whoever hears an
answer keeps still. In the same way the voters of a round see to it that its certificate is published.
"""

from __future__ import annotations

from math import inf

from federated.rounds.chain import BATCH
from federated.rounds.messages import Certificate

HISTORY = 1024  # certificates at hand, of some 3 KiB each; older ones are fetched from a disk
STEP = 0.25  # seconds that each member leaves to the one before it; more than a message takes


class Archive:
    """The newest certificates of a task.

    `gap` is the time in seconds for which a certificate that was sent by anybody is not sent again.
    """

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._certificates: dict[int, Certificate] = {}  # by round, oldest first
        self._sent: dict[int, float] = {}  # by round: when somebody sent the certificate last
        self._due: dict[int, float] = {}  # by round: when it is our turn to send

    def keep(self, certificate: Certificate) -> None:
        """Keeps the certificate of the round after the last one."""
        self._certificates[certificate.round] = certificate
        if len(self._certificates) > HISTORY:
            oldest = next(iter(self._certificates))
            del self._certificates[oldest]
            self._sent.pop(oldest, None)
            self._due.pop(oldest, None)

    def certificate(self, round_number: int) -> Certificate | None:
        """The certificate of a round, None when it is not kept."""
        return self._certificates.get(round_number)

    def heard(self, round_number: int, now: float) -> None:
        """Somebody sent the true certificate of this round."""
        self._sent[round_number] = now
        self._due.pop(round_number, None)

    def plan(self, round_number: int, turn: int, now: float) -> None:
        """We send the certificate of the round after `turn` others had time to, unless one of them does."""
        if round_number in self._certificates and now >= self._sent.get(round_number, -inf) + self._gap:
            due = now + turn * STEP
            self._due[round_number] = min(due, self._due.get(round_number, inf))

    def next_deadline(self) -> float:
        """When `take_due` has something."""
        return min(self._due.values()) if self._due else inf

    def take_due(self, now: float) -> list[Certificate]:
        """What we are to send now: for each round whose turn it is, its certificate and those after it."""
        found: dict[int, Certificate] = {}
        for first in sorted(number for number, due in self._due.items() if now >= due):
            for number in range(first, first + BATCH):
                recent = number > first and now < self._sent.get(number, -inf) + self._gap
                if number in self._certificates and not recent:
                    found[number] = self._certificates[number]
        for number in found:
            self.heard(number, now)
        return [found[number] for number in sorted(found)]
