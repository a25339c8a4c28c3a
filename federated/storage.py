"""What a task puts on the disk and into the blob store, however long these take to let it.

    Disk ───→ a call that fails is made again every second; meanwhile the task is "waiting"
    Saver ──→ the checkpoints, while the next round goes on
    Shelf ──→ the blobs of a round: the store may forget other ones for them, but not them for others

Of a round are needed: the model it builds on, which everybody who is behind asks for, and our own update,
which at first nobody else has. The rest may be had elsewhere: the updates of the others, and what we
computed of them. It is kept as well, until there is no room for what is needed.

What shows that an earlier block is a fraud is needed for some more rounds: others see for
themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from federated.errors import StorageError
from federated.rounds.recent import EVIDENCE_ROUNDS
from p2p.blobs.errors import StoreFull

if TYPE_CHECKING:
    from federated.compute import Compute
    from federated.link import Store
    from federated.rounds.messages import Certificate
    from federated.state import TaskState

STORAGE_RETRY = 1.0  # seconds between two attempts on a disk that fails

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Disk:
    """Calls that touch files, on `compute`.

    `tell` gets the reason when one fails, and None when none of them waits any more.
    """

    def __init__(self, *, compute: Compute, tell: Callable[[str | None], None]) -> None:
        self._compute = compute
        self._tell = tell
        self._stuck = 0  # calls that wait for the disk
        self._told = False  # that there are such

    async def run(self, call: Callable[[], T], compute: Compute | None = None) -> T:
        """The result of `call`, which is made again until the disk, or the store, lets it succeed.

        With `compute` it is made there, and other calls need not wait for it.
        """
        compute = compute or self._compute
        try:
            result = await compute.run(lambda _: call())
        except (StorageError, StoreFull, OSError) as exc:
            self._told = True
            self._tell(str(exc))
            result = await self._run_again(call, compute)
        if self._told and not self._stuck:
            self._told = False
            self._tell(None)
        return result

    async def _run_again(self, call: Callable[[], T], compute: Compute) -> T:
        self._stuck += 1
        try:
            while True:
                await trio.sleep(STORAGE_RETRY)
                try:
                    return await compute.run(lambda _: call())
                except (StorageError, StoreFull, OSError) as exc:
                    logger.debug("still waiting: %s", exc)
        finally:
            self._stuck -= 1  # also when nobody waits for it any more

    async def wait(self) -> None:
        """Returns once the calls that are under way have ended."""
        await self._compute.run(lambda _: None)

    async def try_once(self, call: Callable[[], None]) -> None:
        """Makes a `call` that may as well fail."""
        try:
            await self._compute.run(lambda _: call())
        except OSError as exc:
            logger.warning("a blob cannot be removed: %s", exc)


class Saver:
    """Saves the checkpoints of `state` behind the back of the rounds: the next one waits for the one before.

    So the journal may have entries of two rounds that are in no checkpoint yet, and it keeps those of
    earlier ones until there are many. The chain is read here too: it grows on this `compute`, which is for
    that alone.
    """

    def __init__(self, *, state: TaskState, disk: Disk, compute: Compute, nursery: trio.Nursery) -> None:
        self._state = state
        self._disk = disk
        self._compute = compute
        self._nursery = nursery
        self._saved = trio.Event()
        self._saved.set()
        self._pending: Callable[[], None] | None = None  # until it is saved

    async def save(self, certificate: Certificate, chain: Sequence[Certificate], model: bytes) -> None:
        """Begins to save this checkpoint, once the one before is on the disk."""
        await self._saved.wait()
        self._saved = trio.Event()
        self._pending = partial(self._state.save, certificate, chain, model)
        self._nursery.start_soon(self._save, self._pending)
        if self._state.is_crowded:
            await self._saved.wait()
            await self._disk.run(self._state.forget)

    async def _save(self, call: Callable[[], None]) -> None:
        await self._disk.run(call, self._compute)
        self._pending = None
        self._saved.set()

    async def wait(self) -> None:
        """Returns once the last checkpoint is on the disk."""
        await self._saved.wait()

    async def certificates(self, first: int, count: int) -> Sequence[bytes]:
        """As `TaskState.certificates`."""
        return await self._compute.run(lambda _: self._state.certificates(first, count))

    async def aclose(self) -> None:
        """Closes the files behind the writes that may be under way; a checkpoint is saved if it can be."""
        await self._disk.wait()
        if (pending := self._pending) is not None:
            with suppress(StorageError, OSError):
                await self._compute.run(lambda _: pending())
        await self._compute.run(lambda _: self._state.close())


class Shelf:
    """The blobs in `store` of the round in progress, which are kept for `owner`."""

    def __init__(self, *, store: Store, disk: Disk, owner: str) -> None:
        self._store = store
        self._disk = disk
        self._owner = owner
        self._needed: dict[bytes, None] = {}  # by root
        self._spare: dict[bytes, None] = {}
        self._stale: dict[bytes, None] = {}  # of the last round: somebody may be one behind
        self._evidence: dict[bytes, int] = {}  # by root: the rounds for which it is kept

    async def keep(self, data: bytes, *, needed: bool) -> bytes:
        """Puts `data` into the store, and returns its root."""
        mine = [*self._needed, *self._evidence]

        def put() -> bytes:
            try:
                return self._store.put(data)
            except StoreFull:
                self._store.retain(self._owner, mine)
                return self._store.put(data)

        root = await self._disk.run(put)
        (self._needed if needed else self._spare)[root] = None
        self._retain()
        return root

    def expect(self, root: bytes) -> None:
        """A blob that others have is fetched."""
        self._spare[root] = None
        self._retain()

    def hold(self, roots: Iterable[bytes], rounds: int = EVIDENCE_ROUNDS) -> None:
        """These are needed for some more rounds: they show that a block is a fraud, or are built on later."""
        self._evidence |= {root: max(rounds, self._evidence.get(root, 0)) for root in roots}
        self._retain()

    async def turn(self, root: bytes, data: bytes) -> None:
        """A round begins on the model `data`: forgets those of the round before the last one."""
        over = [old for old, left in self._evidence.items() if left <= 1]
        self._evidence = {old: left - 1 for old, left in self._evidence.items() if left > 1}
        wanted = {**self._needed, **self._spare, **self._evidence}  # an update that came late is wanted again
        going = [old for old in self._stale if old not in wanted]
        if going:
            await self._disk.try_once(partial(self._forget, going))
        self._stale = {old: None for old in (*self._needed, *self._spare, *over) if old != root}
        self._needed, self._spare = {root: None}, {}
        self._retain()
        if root not in self._store:  # it had to give way
            await self.keep(data, needed=True)

    def _forget(self, roots: Iterable[bytes]) -> None:
        """Forgets all of them that can be; the last failure is raised then."""
        failure: OSError | None = None
        for root in roots:
            try:
                self._store.discard(root)
            except OSError as exc:
                failure = exc
        if failure is not None:
            raise failure

    def clear(self) -> None:
        """Nothing is needed any more."""
        self._needed, self._spare, self._evidence = {}, {}, {}
        self._retain()

    def _retain(self) -> None:
        self._store.retain(self._owner, (*self._needed, *self._spare, *self._evidence))
