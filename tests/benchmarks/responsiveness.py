"""How soon a peer answers a ping while it trains, beside how soon an idle one does.

    python -m tests.benchmarks.responsiveness [--pings 300] [--json]

Each workload runs in a process of its own, as a trainer of ours runs there, and is pinged from here:

    idle      nothing
    blas      matrix products, which let go of the interpreter's lock
    python    one loop in pure Python, which never lets go of its own accord
    holding   calls that hold the lock for 0.3 s each: a big sort of Python objects
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import trio
from rich.console import Console
from rich.table import Table

from federated.compute import ShouldStop, ThreadCompute
from p2p.address import parse_address
from p2p.host import open_host
from p2p.peer_id import PeerId
from p2p.transport.tcp import TcpTransport
from tests.processes import run_process

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
GOAL = 0.1  # seconds
PACE = 0.02  # seconds between two pings


def blas(should_stop: ShouldStop) -> None:
    square = np.ones((600, 600), dtype=np.float32)
    while not should_stop():
        square @ square


def python(should_stop: ShouldStop) -> None:
    while not should_stop():
        sum(number * number for number in range(200_000))


def holding(should_stop: ShouldStop) -> None:
    numbers = np.random.default_rng(1).random(400_000).tolist()
    while not should_stop():
        sorted(numbers)


WORKLOADS: dict[str, Callable[[ShouldStop], None] | None] = {
    "idle": None,
    "blas": blas,
    "python": python,
    "holding": holding,
}


def _tell_when_begun(job: Callable[[ShouldStop], None], begun: trio.Event, should_stop: ShouldStop) -> None:
    trio.from_thread.run_sync(begun.set)
    job(should_stop)


async def run_node(name: str) -> None:
    """A peer that does this work until its stdin ends."""
    job = WORKLOADS[name]
    async with open_host(transports=[TcpTransport()]) as host, trio.open_nursery() as nursery:
        await host.listen(parse_address(LOOPBACK))
        if job is not None:
            begun = trio.Event()
            nursery.start_soon(ThreadCompute().run, partial(_tell_when_begun, job, begun), "train")
            await begun.wait()
        print(json.dumps({"event": "listening", "addr": str(host.addresses()[0]), "id": str(host.peer_id)}))
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def measure(name: str, pings: int) -> dict[str, float]:
    """Seconds of a ping, its stream and negotiation included, while the work is under way."""
    command = [sys.executable, "-m", "tests.benchmarks.responsiveness", "--node", name]
    async with run_process(command) as node, open_host(transports=[TcpTransport()]) as host:
        listening = await node.wait_for("listening")
        peer = PeerId.parse(listening["id"])
        await host.connect(peer, [parse_address(listening["addr"])])
        taken = []
        for _ in range(pings):
            begin = trio.current_time()
            await host.ping(peer)
            taken.append(trio.current_time() - begin)
            await trio.sleep(PACE)  # or all were over within one of the long calls
    taken.sort()
    return {"p50": statistics.median(taken), "p99": taken[int(len(taken) * 0.99)], "max": taken[-1]}


def main(argv: Sequence[str] | None = None) -> int:
    """1 when a workload that a trainer may have is over the goal; `holding` is what it may not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pings", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--node", choices=list(WORKLOADS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.node:
        trio.run(run_node, arguments.node)
        return 0
    figures = {name: trio.run(measure, name, arguments.pings) for name in WORKLOADS}
    if arguments.json:
        print(json.dumps({"goal": GOAL, **figures}))
    else:
        table = Table("work", "p50, ms", "p99, ms", "max, ms", "p99 to idle")
        for name, figure in figures.items():
            cells = [f"{figure[key] * 1e3:.1f}" for key in ("p50", "p99", "max")]
            table.add_row(name, *cells, f"{figure['p99'] / figures['idle']['p99']:.1f}")
        Console().print(table)
    return int(any(figures[name]["p99"] > GOAL for name in ("blas", "python")))


if __name__ == "__main__":
    sys.exit(main())
