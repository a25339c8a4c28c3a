"""A whole task in one process: its members as peers on a network in memory, for whoever writes a task.

They are the peers of every other network, with hosts, gossip, blobs and the driver of `federated.driver`; the
network carries their bytes from one to the next, and what they keep is gone with the process.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TypeVar

import trio

from federated.compute import InlineCompute, Kind, ShouldStop, ThreadCompute
from federated.driver import open_task
from federated.errors import PluginError
from federated.manifest import TaskManifest
from federated.registry import Registry
from federated.reports import Report
from p2p.address import parse_address
from p2p.blobs import BlobStore, open_blobs
from p2p.gossipsub import open_gossipsub
from p2p.host import Host, open_host
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.transport import MemoryNetwork, MemoryTransport

DEGREE = 8  # peers that each one connects to when it starts
BLOBS = 1 << 32  # bytes of blobs of one peer, in memory

T = TypeVar("T")

Tell = Callable[[PeerId, Report], None]
"""Hears what each peer reports (`federated.reports`)."""


class LocalCompute(InlineCompute):
    """Trains in threads, and does at once what takes less time than to change to one.

    All peers share the machine, and nobody else waits for an answer of theirs: nothing is throttled.
    """

    def __init__(self, threads: ThreadCompute) -> None:
        self._threads = threads

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        """As `Compute.run`."""
        if kind in ("train", "evaluate"):
            return await self._threads.run(job, "other")
        return await super().run(job, kind)


def local_keys(count: int, seed: int) -> list[KeyPair]:
    """The keys of the peers, always the same for a seed: they talk to nobody else."""
    rng = random.Random(f"atcp local {seed}")
    return [KeyPair.from_seed(rng.randbytes(32)) for _ in range(count)]


async def run_local(manifest: TaskManifest, keys: Sequence[KeyPair], tell: Tell) -> None:
    """Runs all rounds of `manifest`, whose members have these `keys`, and returns when all are through.

    What would cost a peer one round elsewhere ends the run here: whoever writes the plugin wants to know.

    Raises `PluginError` and `DataError` when the task cannot run here.
    """
    left = dict.fromkeys(PeerId.from_public_key(key.public) for key in keys)
    ended, complaints = trio.Event(), list[str]()

    def hear(peer: PeerId, report: Report) -> None:
        tell(peer, report)
        if report["event"] == "task" and report["state"] == "joined" and report.get("reason"):
            complaints.append(report["reason"])
            ended.set()
        if report["event"] == "task" and report["state"] in ("finished", "left"):
            left.pop(peer, None)
            if not left:
                ended.set()

    compute = LocalCompute(ThreadCompute(len(os.sched_getaffinity(0))))
    async with AsyncExitStack() as stack:
        network, registry = MemoryNetwork(), Registry()
        hosts = [await stack.enter_async_context(_open_host(network, key, at)) for at, key in enumerate(keys)]
        async with trio.open_nursery() as nursery:
            for at, host in enumerate(hosts):
                for other in hosts[max(0, at - DEGREE) : at]:
                    nursery.start_soon(host.connect, other.peer_id, other.addresses())
        for host in hosts:
            pubsub = await stack.enter_async_context(open_gossipsub(host))
            blobs = await stack.enter_async_context(open_blobs(host, BlobStore(None, BLOBS)))
            hearing = partial(hear, host.peer_id)
            await stack.enter_async_context(
                open_task(host, pubsub, blobs, manifest, registry, None, hearing, compute=lambda: compute)
            )
        await ended.wait()
    if complaints:
        raise PluginError(complaints[0])


def _open_host(network: MemoryNetwork, key: KeyPair, at: int) -> AbstractAsyncContextManager[Host]:
    listen = [parse_address(f"/memory/{at + 1}")]
    return open_host(key=key, transports=[MemoryTransport(network)], listen=listen)
