"""The network of a task in one process: a bus that hands on what is said, as it is.

    Task ──publish──→ Bus ──→ Log ──Reader──→ LocalLink ──→ the Task of every other member
                       └──────── wakes ──────────┘  ↑ what its own work comes to

All members belong to one process and to whoever started it. So what is said is not signed for its way, not
encrypted, encoded or copied; votes are signed, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from federated.local.log import Log, Reader
from federated.rounds.events import Event, HistoryFailed, HistoryFetched, MessageReceived, PeerConnected
from federated.rounds.messages import Body, Certificate, Commit, Proof, Propose, Reveal, Vote
from federated.rounds.wire import decode_entry
from p2p.waiter import Waiter

if TYPE_CHECKING:
    from federated.history import ReadCertificates
    from federated.rounds.actions import FetchHistory
    from federated.rounds.committee import Membership
    from p2p.keys import KeyPair
    from p2p.peer_id import PeerId

PROGRESS = (
    Commit,
    Reveal,
    Propose,
    Vote,
    Proof,
)  # those that may wait hear of it once something else is said


class Bus:
    """The members of the task `task`, connected all with all from the beginning."""

    def __init__(self, task: bytes, members: Sequence[PeerId]) -> None:
        self.task = task
        self.members = tuple(members)
        self.log = Log()
        self.histories: dict[PeerId, ReadCertificates] = {}
        self._waiting: dict[Waiter, None] = {}
        self._dozing: dict[Waiter, None] = {}  # those that may wait

    def say(self, sender: PeerId, body: Body) -> None:
        """Everybody else hears `body`."""
        self.log.add(MessageReceived(sender=sender, body=body))
        waiting, self._waiting = self._waiting, {}
        if not isinstance(body, PROGRESS):
            waiting |= self._dozing
            self._dozing = {}
        for waiter in waiting:
            waiter.wake()

    async def wait(self, waiter: Waiter, *, may_wait: bool) -> None:
        """Returns when something was said that matters, or `waiter` is woken."""
        (self._dozing if may_wait else self._waiting)[waiter] = None
        await waiter.wait()


class LocalLink:
    """The bus, as the member with the key `key` uses it; its own inbox."""

    at_once = True
    bytes_sent = 0  # nothing travels

    def __init__(self, bus: Bus, peer: PeerId, key: KeyPair) -> None:
        self.peer = peer
        self._bus = bus
        self.key = key
        self._heard = Reader(bus.log, peer)
        self._own: list[Event] = [PeerConnected(peer=other) for other in bus.members if other is not peer]
        self._waiter = Waiter()

    @property
    def inbox(self) -> LocalLink:
        """As `Link.inbox`."""
        return self

    # The inbox: bounded by the work that a machine asks for, and by the log

    async def put(self, event: Event) -> None:
        """As `Inbox.put`; there is always room."""
        self._own.append(event)
        self._waiter.wake()

    async def receive(self, *, may_wait: bool) -> Sequence[Event]:
        """As `Inbox.receive`: all that is there."""
        self._own += self._heard.take()
        if self._own:
            await trio.lowlevel.checkpoint()  # others have their turn
        while not self._own:
            await self._bus.wait(self._waiter, may_wait=may_wait)
            self._own += self._heard.take()
        events, self._own = self._own, []
        return events

    # The link

    @contextmanager
    def listen(self) -> Iterator[None]:
        """The log keeps what is said."""
        yield

    @contextmanager
    def follow(self, nursery: trio.Nursery, read: ReadCertificates) -> Iterator[None]:
        """As `Link.follow`; needs no task."""
        self._bus.histories[self.peer] = read
        try:
            yield
        finally:
            del self._bus.histories[self.peer]

    def publish(self, body: Body) -> None:
        """As `Link.publish`."""
        self._bus.say(self.peer, body)

    def turn(self, membership: Membership) -> None:
        """The machine knows whom to listen to."""

    async def fetch_history(self, action: FetchHistory) -> None:
        """As `Link.fetch_history`."""
        for holder in action.holders:
            read = self._bus.histories.get(holder)
            found = [] if read is None else await read(self._bus.task, action.first, action.count)
            if found:
                entries = (decode_entry(self._bus.task, data) for data in found)
                certificates = tuple(entry for entry in entries if isinstance(entry, Certificate))
                await self.put(HistoryFetched(holder=holder, certificates=certificates))
                return
        await self.put(HistoryFailed())
