"""The directory of tasks on a peer: announced on a topic, kept in the DHT, fetched from whoever has them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from federated.directory.head import HeadRecord, encode_head
from federated.directory.signed import MAX_SIGNED, SignedTask, decode_task, encode_task
from federated.directory.table import FRESH, Entry, Event, Heard, Hold, Release, Table, Want
from federated.directory.validators import head_key, task_key
from federated.directory.wire import ANY, TASK_SIZE, TOPIC, Body, Progress, decode, encode
from federated.manifest import TaskId
from p2p.errors import LocalProtocolError, P2PError
from p2p.gossipsub import Pubsub, PubsubMessage, Verdict
from p2p.host import Host
from p2p.kad import Kad, OutdatedRecord, RecordNotFound, provider_key
from p2p.kad.namespaces import MAX_RECORD
from p2p.peer_id import PeerId
from p2p.request_response import request, responder
from p2p.scope import open_scope

PROTOCOL = "/atcp/task/1"  # a task id → the signed task
FIND_TIMEOUT = 30.0  # seconds to find one task
ASK_TIMEOUT = 10.0  # seconds for one holder to send a manifest
HEAD_INTERVAL = 60.0  # seconds between two records of a task's newest certificate, at least
QUIET = 3.0  # seconds without another task until all are known; small tasks answer within one
PROVIDE_PAUSE = 10.0  # seconds until it is told again, when there was nobody to tell; nothing is sent then
ASK_PAUSE = 5.0  # seconds from a question on the topic to the next: the answers come spread over some

logger = logging.getLogger(__name__)


class Directory:
    """The tasks of the network, as one peer knows them. Made by `open_directory`."""

    def __init__(
        self, host: Host, pubsub: Pubsub, kad: Kad, wall_clock: Callable[[], float], nursery: trio.Nursery
    ) -> None:
        self._host = host
        self._pubsub = pubsub
        self._kad = kad
        self._wall_clock = wall_clock
        self._nursery = nursery
        self._table = Table(host.rng)
        self._held: dict[TaskId, SignedTask] = {}
        self._heads: dict[TaskId, HeadRecord] = {}  # that wait to be put
        self._provided: dict[TaskId, None] = {}
        self._news = trio.Event()  # a task was heard of
        self._rearm = trio.Event()

    # What others here ask and tell

    def entries(self) -> list[Entry]:
        """All tasks that are known to be there."""
        return self._table.entries(trio.current_time())

    async def listen(self, seconds: float) -> list[Entry]:
        """All tasks that are known once everybody was asked, and no more came for a while.

        Waits for the first one, but no longer than `seconds` in all.
        """
        with trio.move_on_after(seconds):
            await self._pubsub.wait_for_peers(TOPIC, 1)
            known = -1
            while not 0 < known == len(self.entries()):
                known = len(self.entries())
                self._handle(Want(task=ANY))
                await trio.sleep(QUIET)
        return self.entries()

    def hold(self, task: SignedTask) -> None:
        """We take part in `task`: it is announced, served to others and put into the DHT."""
        known = task.task_id in self._held
        self._held[task.task_id] = task
        if not known:
            self._handle(Hold(envelope=task.envelope, round=0, progress=Progress.RUNNING))
            self._nursery.start_soon(self._put_task, task)

    def provide(self, task: TaskId) -> None:
        """We are a member of our `task`: whoever looks for members in the DHT finds us, until `release`."""
        if task in self._held and task not in self._provided:
            self._provided[task] = None
            self._nursery.start_soon(self._put_provider, task)

    def advance(
        self, task: TaskId, round_number: int, progress: Progress, head: HeadRecord | None = None
    ) -> None:
        """Our task is in this round; `head` is the newest certificate, for the DHT."""
        held = self._held[task]
        self._handle(Hold(envelope=held.envelope, round=round_number, progress=progress))
        if head is not None:
            waits = task in self._heads
            self._heads[task] = head
            if not waits:
                self._nursery.start_soon(self._put_head, task)

    def release(self, task: TaskId) -> None:
        """We take part in `task` no more."""
        if self._held.pop(task, None) is not None:
            self._handle(Release(task=task))
        if task in self._provided:
            del self._provided[task]
            self._kad.stop_providing(provider_key(task))

    async def find(self, task: TaskId) -> SignedTask:
        """The task with this id: ours, from the DHT, from a member that the DHT names, or who announces it.

        Raises `RecordNotFound` when there is none within `FIND_TIMEOUT`.
        """
        if task in self._held:
            return self._held[task]
        found: list[SignedTask] = []

        async def search(way: Callable[[TaskId], Awaitable[SignedTask]]) -> None:
            found.append(await way(task))
            nursery.cancel_scope.cancel()

        with trio.move_on_after(FIND_TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(search, self._from_dht)
                nursery.start_soon(search, self._from_members)
                nursery.start_soon(search, self._from_holders)
        if not found:
            raise RecordNotFound(f"nobody knows the task {task.hex()}; is a peer that takes part reachable?")
        return found[0]

    # Where tasks come from; each looks for as long as it is not cancelled

    async def _from_dht(self, task: TaskId) -> SignedTask:
        while True:
            try:
                return decode_task(await self._kad.get_value(task_key(task), quorum=1))
            except P2PError as exc:
                logger.debug("the task %s is not in the DHT: %s", task.hex(), exc)
            await trio.sleep(ASK_PAUSE)

    async def _from_members(self, task: TaskId) -> SignedTask:
        """Asks whom the DHT names; connected to nobody who takes part, we hear no announcement."""
        while True:
            async with self._kad.find_providers(provider_key(task)) as members:
                async for member in members:
                    if (signed := await self._request(member, task)) is not None:
                        return signed
            await trio.sleep(ASK_PAUSE)

    async def _from_holders(self, task: TaskId) -> SignedTask:
        """Asks whoever announces it, each once."""
        asked: dict[PeerId, None] = {}
        await self._pubsub.wait_for_peers(TOPIC, 1)
        while True:
            self._news = trio.Event()
            entry = self._table.entry(task, trio.current_time())
            for holder in [] if entry is None else [peer for peer in entry.holders if peer not in asked]:
                asked[holder] = None
                if (signed := await self._request(holder, task)) is not None:
                    return signed
            self._handle(Want(task=task))
            with trio.move_on_after(ASK_PAUSE):
                await self._news.wait()

    async def _request(self, holder: PeerId, task: TaskId) -> SignedTask | None:
        try:
            with trio.fail_after(ASK_TIMEOUT):
                answer = await request(self._host, holder, [PROTOCOL], task, max_answer=MAX_SIGNED)
            signed = decode_task(answer) if answer else None
        except (P2PError, trio.TooSlowError) as exc:
            logger.info("%s does not send the task %s: %s", holder, task.hex(), exc)
            return None
        return signed if signed is not None and signed.task_id == task else None

    async def _answer(self, _: PeerId, task: bytes) -> bytes:
        held = self._held.get(TaskId(task))
        return b"" if held is None else encode_task(held)

    # Tasks of our own

    async def _put_task(self, task: SignedTask) -> None:
        """Puts the task into the DHT, once there is somebody to keep it; it is put again from there on."""
        value = encode_task(task)
        if len(value) <= MAX_RECORD:
            await self._pubsub.wait_for_peers(TOPIC, 1)
            await self._put(task_key(task.task_id), value)

    async def _put_provider(self, task: TaskId) -> None:
        """Tells the DHT that we are a member, once there is somebody to tell; it repeats that by itself."""
        try:
            while task in self._provided:
                if await self._kad.provide(provider_key(task)):
                    break
                await trio.sleep(PROVIDE_PAUSE)
        except LocalProtocolError as exc:
            logger.warning("nobody finds us as a member of %s in the DHT: %s", task.hex(), exc)
        if task not in self._provided:  # it was left meanwhile
            self._kad.stop_providing(provider_key(task))

    async def _put_head(self, task: TaskId) -> None:
        """Puts the newest certificate, and again as it is followed by others, now and then."""
        while task in self._heads and task in self._held:
            latest = self._heads[task]
            value = encode_head(latest)
            if value is not None:
                await self._put(head_key(task), value)
            await trio.sleep(HEAD_INTERVAL)
            if self._heads.get(task) is latest:
                break
        self._heads.pop(task, None)

    async def _put(self, key: bytes, value: bytes) -> None:
        try:
            await self._kad.put_value(key, value)
        except OutdatedRecord:
            pass  # somebody else was quicker
        except (P2PError, LocalProtocolError) as exc:
            logger.warning("%s is not put into the DHT: %s", key.decode(), exc)

    # The topic

    def _judge(self, message: PubsubMessage) -> Verdict:
        return self._table.judge(message.sender, message.data, trio.current_time(), self._wall_clock())

    def _receive(self, message: PubsubMessage) -> None:
        self._handle(Heard(sender=message.sender, body=decode(message.data)[0]))
        self._news.set()

    def _handle(self, event: Event) -> None:
        self._publish(self._table.handle(event, trio.current_time()))
        self._rearm.set()

    def _publish(self, bodies: Sequence[Body]) -> None:
        for body in bodies:
            self._pubsub.publish(TOPIC, encode(body, int(self._wall_clock() + FRESH)))

    async def _run(self) -> None:
        """Asks for tasks once there is somebody to answer; then announces ours when it is time."""
        self._nursery.start_soon(self._ask_first)
        while True:
            self._rearm = trio.Event()
            with trio.move_on_at(self._table.next_deadline()):
                await self._rearm.wait()
            self._publish(self._table.handle_timer(trio.current_time()))

    async def _ask_first(self) -> None:
        await self._pubsub.wait_for_peers(TOPIC, 1)
        self._handle(Want(task=ANY))


@asynccontextmanager
async def open_directory(
    host: Host, pubsub: Pubsub, kad: Kad, *, wall_clock: Callable[[], float] = time.time
) -> AsyncIterator[Directory]:
    """The directory on `host` while the body runs.

    `kad` must have the namespaces of `federated.directory.validators`; `wall_clock` (unix seconds) dates
    what is said.
    """
    async with open_scope() as nursery:
        directory = Directory(host, pubsub, kad, wall_clock, nursery)
        pubsub.add_validator(TOPIC, directory._judge)
        host.handle(PROTOCOL, responder(directory._answer, max_request=TASK_SIZE, timeout=ASK_TIMEOUT))
        try:
            with pubsub.subscribe_each(TOPIC, directory._receive):
                nursery.start_soon(directory._run)
                yield directory
                nursery.cancel_scope.cancel()
        finally:
            host.unhandle(PROTOCOL)
