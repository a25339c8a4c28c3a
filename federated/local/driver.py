"""A whole task in one process, for whoever writes one: its members, until all of them are through.

They are the members of every other task, with the driver of `federated.driver`, its machines, votes and
certificates. What is under them is `federated.local.link` in the place of the overlay, and what they keep is
gone with the process.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from federated.driver import open_task_on
from federated.errors import PluginError
from federated.local.blobs import LocalBlobs
from federated.local.commons import Commons
from federated.local.compute import LocalCompute
from federated.local.link import Bus, LocalLink
from federated.manifest import TaskManifest
from federated.registry import Registry
from federated.reports import Report
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.scope import open_scope

Tell = Callable[[PeerId, Report], None]
"""Hears what each peer reports (`federated.reports`)."""


class Run:
    """What the members of one run came to; `tell` hears all of it."""

    def __init__(self, members: Sequence[PeerId], tell: Tell) -> None:
        self.ended = trio.Event()
        self.failure: str | None = None
        self.spent: dict[PeerId, None] = {}  # those whose privacy budget is
        self._left = dict.fromkeys(members)
        self._tell = tell

    def hear(self, peer: PeerId, report: Report) -> None:
        """A member reports."""
        self._tell(peer, report)
        if report["event"] != "task":
            return
        match report:
            case {"state": "joined", "reason": str(), "privacy": dict()}:
                self.spent[peer] = None
            case {"state": "joined", "reason": str(reason)}:
                self.failure = self.failure or reason
            case {"state": "finished" | "left"}:
                self._left.pop(peer, None)
        if self.failure is not None or all(member in self.spent for member in self._left):
            self.ended.set()


def local_keys(count: int, seed: int) -> list[KeyPair]:
    """The keys of the peers, always the same for a seed: they talk to nobody else."""
    rng = random.Random(f"atcp local {seed}")
    return [KeyPair.from_seed(rng.randbytes(32)) for _ in range(count)]


async def run_local(manifest: TaskManifest, keys: Sequence[KeyPair], tell: Tell) -> bool:
    """Runs all rounds of `manifest`, whose members have these `keys`, and returns when all are through.

    That is so, too, when the privacy budgets of all are spent; whether they are is returned. What would cost
    a peer one round elsewhere ends the run here: whoever writes the plugin wants to know.

    Raises `PluginError` and `DataError` when the task cannot run here.
    """
    members = {PeerId.from_public_key(key.public): key for key in keys}
    run, bus = Run(list(members), tell), Bus(manifest.task_id, list(members))
    commons, blobs, registry = Commons(), LocalBlobs(), Registry()
    compute = LocalCompute(len(os.sched_getaffinity(0)))
    options: dict[str, Any] = {
        "compute": lambda: compute,
        "verify": commons.verify,
        "bench": commons.open_bench,
        "rng": _rng(manifest),
    }
    async with open_scope() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(compute.serve)
        for peer, key in members.items():
            link, hearing = LocalLink(bus, peer, key), partial(run.hear, peer)
            await stack.enter_async_context(
                open_task_on(link, blobs, manifest, registry, None, hearing, **options)
            )
        await run.ended.wait()
    if run.failure is not None:
        raise PluginError(run.failure)
    return bool(run.spent)


def _rng(manifest: TaskManifest) -> random.Random:
    """What members draw from: what the system gives where a model must not tell of it, else its seed is."""
    is_secret = manifest.privacy is not None or manifest.sums is not None
    return random.SystemRandom() if is_secret else random.Random()
