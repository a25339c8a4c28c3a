"""What a task asks of the network that it runs on, and the overlay as that network.

Task ──publish──→ Link ──→ the links of the other members ──→ Inbox ──→ Task
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

import trio

from federated.feed import Feed
from federated.history import ReadCertificates, serve_history
from federated.rounds.admission import Admissions
from federated.rounds.events import Event
from federated.rounds.gate import Gate
from federated.rounds.messages import LIFETIME, Message
from federated.rounds.strangers import Strangers
from federated.rounds.wire import encode

if TYPE_CHECKING:
    from federated.manifest import TaskManifest
    from federated.rounds.actions import FetchHistory
    from federated.rounds.committee import Membership
    from federated.rounds.messages import Body
    from p2p.gossipsub import Pubsub, Subscription
    from p2p.host import Host
    from p2p.keys import KeyPair
    from p2p.peer_id import PeerId

EVENT_QUEUE = 1024  # events that wait for the machine: a few rounds' messages of 64 members, 4 KiB each


class Inbox(Protocol):
    """The events of one task: what it hears, and what its own work comes to."""

    async def put(self, event: Event) -> None:
        """Adds an event; waits while there are too many."""

    async def receive(self, *, may_wait: bool) -> Sequence[Event]:
        """The next event, once there is one, and those that may be handled in the same turn.

        Who `may_wait` need not be told at once what others say of the round in progress.
        """


class Link(Protocol):
    """The network, as one member of one task uses it."""

    @property
    def peer(self) -> PeerId:
        """Who we are."""

    @property
    def key(self) -> KeyPair:
        """Our key."""

    @property
    def inbox(self) -> Inbox:
        """Where events come, from the network and from the task itself."""

    @property
    def at_once(self) -> bool:
        """Whether all work but training is done without waiting for anybody: then it needs no task."""

    @property
    def bytes_sent(self) -> int:
        """To all peers, since this one started."""

    def listen(self) -> AbstractContextManager[None]:
        """While the body runs, nothing is lost that members say."""

    def follow(self, nursery: trio.Nursery, read: ReadCertificates) -> AbstractContextManager[None]:
        """While the body runs, the inbox gets what is said, and who comes and goes.

        Others get what we `read` of our history.
        """

    def publish(self, body: Body) -> None:
        """Says `body` to all other members."""

    def turn(self, membership: Membership) -> None:
        """From now on these are the members."""

    async def fetch_history(self, action: FetchHistory) -> None:
        """Asks holders for certificates; their answer goes to the inbox."""


class Store(Protocol):
    """The blobs that are here, by their roots; see `p2p.blobs.BlobStore`."""

    def __contains__(self, root: bytes) -> bool: ...

    def put(self, data: bytes) -> bytes:
        """Keeps `data` and returns its root. Raises `StoreFull`."""

    def discard(self, root: bytes) -> None:
        """Forgets a blob, unless somebody retains it."""

    def retain(self, owner: str, roots: Iterable[bytes]) -> None:
        """Keeps these blobs, here or still to come, until `owner` names others."""


class Exchange(Protocol):
    """The blobs that members have."""

    @property
    def store(self) -> Store:
        """Those that are here."""

    @property
    def bytes_sent(self) -> int:
        """Of blobs, since this peer started."""

    async def fetch(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        """A blob, from the store or from one who has it. Raises `BlobUnavailable`."""


class Queue:
    """The inbox of a task on the overlay: bounded, one event a turn."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Event](EVENT_QUEUE)

    async def put(self, event: Event) -> None:
        """As `Inbox.put`."""
        await self._send.send(event)

    async def receive(self, *, may_wait: bool) -> Sequence[Event]:
        """As `Inbox.receive`: one event, and then others have their turn."""
        return (await self._receive.receive(),)


class OverlayLink:
    """The `topic` of a task, and its gate, on a host; `wall_clock` (unix seconds) dates messages."""

    at_once = False

    def __init__(
        self,
        host: Host,
        pubsub: Pubsub,
        manifest: TaskManifest,
        topic: str,
        wall_clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._pubsub = pubsub
        self._task = manifest.task_id
        self._topic = topic
        self._wall_clock = wall_clock
        self._gate = Gate(
            task=manifest.task_id,
            members=manifest.peer_ids,
            wall_clock=wall_clock,
            strangers=Strangers(Admissions(manifest)) if manifest.is_open else None,
        )
        self._queue = Queue()
        self._feed = Feed(host=host, task=manifest.task_id, send=self._queue.put)
        self._subscription: Subscription | None = None
        self._seq = int(wall_clock() * 1e6)  # above all that an earlier process used

    @property
    def peer(self) -> PeerId:
        """As `Link.peer`."""
        return self._host.peer_id

    @property
    def key(self) -> KeyPair:
        """As `Link.key`."""
        return self._host.key

    @property
    def inbox(self) -> Queue:
        """As `Link.inbox`."""
        return self._queue

    @property
    def bytes_sent(self) -> int:
        """As `Link.bytes_sent`."""
        return self._host.bytes_sent

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Subscribes to the topic; what comes waits for `follow`."""
        self._pubsub.add_validator(self._topic, self._gate.judge)
        with self._pubsub.subscribe(self._topic) as self._subscription:
            yield

    @contextmanager
    def follow(self, nursery: trio.Nursery, read: ReadCertificates) -> Iterator[None]:
        """As `Link.follow`; within the body of `listen`."""
        assert self._subscription is not None
        nursery.start_soon(self._feed.follow_topic, self._subscription)
        nursery.start_soon(self._feed.follow_host)
        with serve_history(self._host, self._task, read):
            yield

    def publish(self, body: Body) -> None:
        """As `Link.publish`."""
        self._seq += 1
        expiry = int(self._wall_clock() + LIFETIME)
        message = Message(task=self._task, seq=self._seq, expiry=expiry, body=body)
        self._pubsub.publish(self._topic, encode(message))

    def turn(self, membership: Membership) -> None:
        """As `Link.turn`."""
        self._gate.turn(membership)

    async def fetch_history(self, action: FetchHistory) -> None:
        """As `Link.fetch_history`."""
        await self._feed.fetch_history(action)
