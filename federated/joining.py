"""Becoming a member of a task that is under way, and then taking part in it like everybody else.

    open_member ──→ member already ─────────────────────────────────────────┐
         └────────→ Applicant: follow the chain, ask to be let in ──→ Admitted ──→ open_task

The subscription of the task's topic is kept from the first certificate that is heard until the task is
closed: whoever leaves a topic is kept out of the mesh for a while.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from federated.compute import Compute, ThreadCompute
from federated.credential import find_credential, refusal
from federated.directory.members import meet_members
from federated.driver import Task, open_task, topic_of
from federated.feed import Feed
from federated.invitation import Ticket
from federated.manifest import MAX_UPDATE, TaskManifest
from federated.plugin import PeerContext
from federated.registry import Registry
from federated.reports import Report, task_report
from federated.rounds.actions import FetchHistory, Misbehaved, Publish
from federated.rounds.applicant import Admitted, Applicant, ApplicantAction, ApplicantEvent, Refused
from federated.rounds.committee import Membership
from federated.rounds.events import MessageReceived
from federated.rounds.messages import LIFETIME, Body, Certificate, Message, MessageError
from federated.rounds.trusted import TrustedBlock
from federated.rounds.wire import decode, encode
from federated.state import TaskState
from federated.workbench import OpenBench, digest, open_bench
from p2p.blobs import Blobs
from p2p.files import Files, FolderFiles
from p2p.gossipsub import Pubsub, PubsubMessage, Verdict
from p2p.host import Host
from p2p.kad import Kad
from p2p.peer_id import PeerId
from p2p.scope import open_scope

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

EVENT_QUEUE = 256  # events that wait for the applicant: a round's certificates, peers that come and go

logger = logging.getLogger(__name__)


class Joining:
    """The applicant `machine` on a host; `run` returns once the peer is a member."""

    def __init__(
        self,
        *,
        host: Host,
        pubsub: Pubsub,
        manifest: TaskManifest,
        machine: Applicant,
        wall_clock: Callable[[], float],
        nursery: trio.Nursery,
        kad: Kad | None = None,
    ) -> None:
        self._host = host
        self._pubsub = pubsub
        self._kad = kad
        self._manifest = manifest
        self._machine = machine
        self._wall_clock = wall_clock
        self._nursery = nursery
        self._send_event, self._events = trio.open_memory_channel[ApplicantEvent](EVENT_QUEUE)
        self._feed = Feed(host=host, task=manifest.task_id, send=self._send_event.send)
        self._seq = int(wall_clock() * 1e6)

    async def run(self) -> Admitted:
        """Follows the task until it has let us in. Raises `JoinRefused`."""
        topic = topic_of(self._manifest)
        self._pubsub.add_validator(topic, self._judge)
        with self._pubsub.subscribe_each(topic, self._hear):
            self._nursery.start_soon(self._feed.follow_host)
            if self._kad is not None:
                self._nursery.start_soon(self._meet_members, self._kad)
            while True:
                for action in await self._next_actions():
                    admitted = self._perform(action)
                    if admitted is not None:
                        return admitted

    # What happens

    def _judge(self, message: PubsubMessage) -> Verdict:
        """Lets in what members say. Whom we do not know may have been admitted later than we know of."""
        try:
            content = decode(message.data)
        except MessageError:
            return Verdict.REJECT
        if content.task != self._manifest.task_id:
            return Verdict.REJECT
        known = self._machine.membership.is_active(message.sender)
        return Verdict.ACCEPT if known and content.is_fresh(self._wall_clock()) else Verdict.IGNORE

    def _hear(self, message: PubsubMessage) -> None:
        body = decode(message.data).body  # `_judge` has decoded it before
        if isinstance(body, Certificate):
            self._tell(MessageReceived(sender=message.sender, body=body))

    async def _meet_members(self, kad: Kad) -> None:
        def is_member(peer: PeerId) -> bool:
            return self._machine.membership.is_active(peer)

        manifest = self._manifest
        topic = topic_of(manifest)
        await meet_members(self._host, self._pubsub, kad, manifest.task_id, topic, is_member)

    def _tell(self, event: ApplicantEvent) -> None:
        """What does not fit in is dropped: certificates are in the history, too."""
        try:
            self._send_event.send_nowait(event)
        except trio.WouldBlock:
            logger.debug("dropped %s", event)

    async def _next_actions(self) -> Sequence[ApplicantAction]:
        event: ApplicantEvent | None = None
        deadline = self._machine.next_deadline()
        with trio.move_on_at(math.inf if deadline is None else deadline):
            event = await self._events.receive()
        now = trio.current_time()
        return self._machine.handle_timer(now) if event is None else self._machine.handle(event, now)

    # What is to be done

    def _perform(self, action: ApplicantAction) -> Admitted | None:
        match action:
            case Publish(body=body):
                self._publish(body)
            case FetchHistory():
                fetch = partial(self._feed.fetch_history, or_none=True)  # who has none has no more to tell
                self._nursery.start_soon(fetch, action)
            case Misbehaved(round=number, peer=peer, rule=rule):
                logger.warning("round %d: %s broke the rule %s", number, peer, rule)
            case Refused(rule=rule):
                raise refusal(rule)
            case Admitted():
                return action
        return None

    def _publish(self, body: Body) -> None:
        self._seq += 1
        expiry = int(self._wall_clock() + LIFETIME)
        message = Message(task=self._manifest.task_id, seq=self._seq, expiry=expiry, body=body)
        self._pubsub.publish(topic_of(self._manifest), encode(message))


@asynccontextmanager
async def open_member(
    host: Host,
    pubsub: Pubsub,
    blobs: Blobs,
    manifest: TaskManifest,
    registry: Registry,
    data_dir: Path | None,
    report: Callable[[Report], None],
    *,
    ticket: Ticket | None = None,
    trusted: TrustedBlock | None = None,
    kad: Kad | None = None,
    files: Files | None = None,
    compute: Callable[[], Compute] = ThreadCompute,
    bench: OpenBench = open_bench,
    rng: random.Random | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> AsyncIterator[Task]:
    """As `open_task`, also for a peer that is no member yet: becomes one before the body runs.

    Where the task wants an invitation `ticket` is it; a task that wants work gets it. Everything up to the
    block `trusted` is known by its hash. Until then `kad` is where members are found to connect to. Becoming
    a member takes as long as it takes: a round of the task if all goes well. Raises what `open_task` raises,
    and `JoinRefused`.
    """
    if files is None and data_dir is not None:
        files = FolderFiles(data_dir)
    async with AsyncExitStack() as stack:
        admitted: tuple[Certificate, ...] = ()
        if not await _has_number(manifest, host.peer_id, files, compute()):
            report(task_report(manifest, "joining"))
            stack.enter_context(pubsub.subscribe_each(topic_of(manifest), lambda message: None))
            joined = await join(
                host,
                pubsub,
                manifest,
                registry,
                data_dir,
                ticket,
                trusted=trusted,
                kad=kad,
                compute=compute(),
                bench=bench,
                wall_clock=wall_clock,
            )
            admitted = joined.history
        task = open_task(
            host,
            pubsub,
            blobs,
            manifest,
            registry,
            data_dir,
            report,
            admitted=admitted,
            files=files,
            compute=compute,
            bench=bench,
            rng=rng,
            wall_clock=wall_clock,
        )
        yield await stack.enter_async_context(task)


async def join(
    host: Host,
    pubsub: Pubsub,
    manifest: TaskManifest,
    registry: Registry,
    data_dir: Path | None,
    ticket: Ticket | None,
    *,
    trusted: TrustedBlock | None,
    kad: Kad | None,
    compute: Compute,
    bench: OpenBench = open_bench,
    wall_clock: Callable[[], float],
) -> Admitted:
    """Makes the peer a member. Raises `JoinRefused`, and `PluginError` and `DataError` as `open_task` does.

    Plugins and data are loaded for a try: what fails then fails before others count on this peer, and does
    not take its first rounds to load.
    """
    members = (*manifest.peer_ids, host.peer_id)  # or a later place: that shows when it is let in
    context = PeerContext(peer=host.peer_id, members=members, index=len(members) - 1, data_dir=data_dir)
    tried = await compute.run(lambda stop: bench(manifest, registry, context, stop))
    await compute.run(lambda _: tried.close())
    credential = await find_credential(manifest, host.peer_id, ticket, compute)
    machine = Applicant(
        manifest=manifest,
        peer=host.peer_id,
        credential=credential,
        initial=digest(tried.initial),
        trusted=trusted,
    )
    async with open_scope() as nursery:
        joining = Joining(
            host=host,
            pubsub=pubsub,
            manifest=manifest,
            machine=machine,
            wall_clock=wall_clock,
            nursery=nursery,
            kad=kad,
        )
        return await joining.run()


async def _has_number(manifest: TaskManifest, peer: PeerId, files: Files | None, compute: Compute) -> bool:
    """Whether `peer` is or was a member, by the manifest or by what it keeps of the task."""
    members = Membership(manifest.task_id, manifest.peer_ids)
    if members.number(peer) is not None:
        return True
    folder = None if files is None else files.sub("tasks").sub(manifest.task_id.hex())
    state = TaskState(folder, manifest.task_id, MAX_UPDATE)
    restored = await compute.run(lambda _: state.peek())
    return restored.membership(members).number(peer) is not None
