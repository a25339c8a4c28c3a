"""What the members of a task in one process say: one list for all, in which each reads on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federated.rounds.events import MessageReceived
    from p2p.peer_id import PeerId

KEPT = 1 << 14  # messages; several rounds of 128 members. Who has not read so much has missed the oldest


class Log:
    """The newest messages, at least `kept` of them, oldest first; number 0 was the first of all."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._messages: list[MessageReceived] = []
        self._forgotten = 0

    def add(self, message: MessageReceived) -> None:
        """One more."""
        self._messages.append(message)
        if len(self._messages) >= 2 * self._kept:
            self._forgotten += self._kept
            del self._messages[: self._kept]

    @property
    def end(self) -> int:
        """The number of the next message."""
        return self._forgotten + len(self._messages)

    def since(self, number: int) -> list[MessageReceived]:
        """The messages from `number` on, as far as they are kept."""
        return self._messages[max(0, number - self._forgotten) :]


class Reader:
    """Where the member `peer` is in `log`: it hears what others say, from the beginning on."""

    def __init__(self, log: Log, peer: PeerId) -> None:
        self._log = log
        self._peer = peer
        self._next = 0

    def take(self) -> list[MessageReceived]:
        """What others said since the last call."""
        if self._next == self._log.end:
            return []
        found = [message for message in self._log.since(self._next) if message.sender is not self._peer]
        self._next = self._log.end
        return found
