"""A node program that a measuring driver commands: JSON lines on stdin, JSON lines on stdout.

    python -m tests.benchmarks.node [--nodes N] [--features echo,sink,gossip,kad] [--profile default|tuned]

It starts N hosts in one process and prints one "ready" line when all listen; then it answers
`{"id":n,"cmd":name,"node":index,"timeout":s,...}` with `{"id":n,"ok":true,"result":{...}}` or
`{"id":n,"ok":false,"error":"..."}`, in any order, until `quit` or the end of stdin.
`tuned` changes nothing here: loopback has no rate limits that it could lift.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from p2p.address import parse_address, split_peer, with_peer
from p2p.errors import P2PError
from p2p.framing import receive_exactly
from p2p.host import Host, open_host
from p2p.lines import LineSplitter
from p2p.peer_id import PeerId
from p2p.stream import Stream

if TYPE_CHECKING:
    from p2p.gossipsub import Pubsub
    from p2p.kad import Kad

Json = dict[str, Any]

SINK = "/bench/sink/1"
ECHO = "/bench/echo/1"
LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")
MAX_LINE = 1 << 20  # bytes of one command
DEFAULT_TIMEOUT = 55.0  # seconds of one command
MESSAGE = struct.Struct(">dII4s")  # wall clock s, sender tag, sequence number, mark
MARK = b"BNCH"


def rss_mb() -> float:
    """Resident memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def quantiles(values: Sequence[float]) -> Json:
    """p50, p99 and max; None without values."""
    if not values:
        return {"p50": None, "p99": None, "max": None}
    ordered = sorted(values)
    at = {"p50": 0.5, "p99": 0.99}
    found = {name: ordered[min(len(ordered) - 1, int(part * len(ordered)))] for name, part in at.items()}
    return {name: round(value, 4) for name, value in {**found, "max": ordered[-1]}.items()}


class Node:
    """One host with the features that were asked for."""

    def __init__(self, index: int, host: Host) -> None:
        self.host = host
        self.pubsub: Pubsub | None = None
        self.kad: Kad | None = None
        self.sunk = 0  # bytes that the sink read
        self.tag = (os.getpid() * 64 + index) & 0xFFFFFFFF
        self.latencies: list[float] = []  # ms
        self.seen: set[tuple[int, int]] = set()
        self.duplicates = 0
        self.other: list[str] = []

    async def serve_sink(self, stream: Stream) -> None:
        """Reads to the end and answers one byte."""
        while data := await stream.receive_some():
            self.sunk += len(data)
        await stream.send_all(b"\1")

    async def serve_echo(self, stream: Stream) -> None:
        """Sends back what it gets."""
        while data := await stream.receive_some():
            await stream.send_all(data)

    async def collect(self, topic: str) -> None:
        """Notes when each message of others came."""
        assert self.pubsub is not None
        with self.pubsub.subscribe(topic) as subscription:
            async for message in subscription:
                self._note(message.data, time.time())

    def _note(self, data: bytes, now: float) -> None:
        if len(data) < MESSAGE.size or data[MESSAGE.size - len(MARK) : MESSAGE.size] != MARK:
            self.other.append(data[:64].decode("latin1"))
            return
        sent_at, tag, number, _ = MESSAGE.unpack_from(data)
        if tag == self.tag:
            return
        if (tag, number) in self.seen:
            self.duplicates += 1
            return
        self.seen.add((tag, number))
        self.latencies.append((now - sent_at) * 1000)


class Program:
    """All nodes of the process, and one method for each command."""

    def __init__(self, nursery: trio.Nursery, nodes: list[Node]) -> None:
        self._nursery = nursery
        self._nodes = nodes

    async def handle(self, command: Json) -> None:
        """Carries out one command and prints its answer."""
        try:
            method: Callable[[Node, Json], Awaitable[Json]] | None
            method = getattr(self, "do_" + command["cmd"], None)
            if method is None:
                raise ValueError(f"this node has no command {command['cmd']!r}")
            with trio.fail_after(command.get("timeout", DEFAULT_TIMEOUT)):
                result = await method(self._nodes[command.get("node", 0)], command)
            answer = {"ok": True, "result": result}
        except Exception as exc:  # whatever went wrong is the answer
            answer = {"ok": False, "error": f"{type(exc).__name__}: {exc}"[:500]}
        emit({"id": command.get("id"), **answer})

    async def _connect(self, node: Node, command: Json) -> PeerId:
        address, peer = split_peer(parse_address(command["addr"]))
        assert address is not None
        assert peer is not None
        await node.host.connect(peer, [address])
        return peer

    async def do_connect(self, node: Node, command: Json) -> Json:
        """Milliseconds of one dial with its upgrade."""
        start = time.perf_counter()
        await self._connect(node, command)
        return {"ms": (time.perf_counter() - start) * 1000}

    async def do_throughput(self, node: Node, command: Json) -> Json:
        """One stream, one way, to the answer byte of the sink."""
        stream = await node.host.open_stream(await self._connect(node, command), [SINK])
        chunk, sent = bytes(command["chunk"]), 0
        start = time.perf_counter()
        end = start + command.get("max_seconds", 40)
        while sent < command["bytes"] and time.perf_counter() < end:
            await stream.send_all(chunk)
            sent += len(chunk)
        await stream.send_eof()
        await receive_exactly(stream, 1)
        seconds = time.perf_counter() - start
        await stream.aclose()
        return {"bytes": sent, "seconds": seconds, "MBps": sent / seconds / 1e6}

    async def _repeat(self, command: Json, step: Callable[[], Awaitable[None]]) -> Json:
        """`n` times `step`, `at_once` of them at any time, failures counted."""
        errors: Counter[str] = Counter()
        times: list[float] = []
        begin = time.perf_counter()
        end = begin + command.get("max_seconds", 40)
        left = iter(range(command["n"]))

        async def work() -> None:
            while (start := time.perf_counter()) < end and next(left, None) is not None:
                try:
                    await step()
                    times.append((time.perf_counter() - start) * 1000)
                except (P2PError, trio.TooSlowError) as exc:
                    errors[f"{type(exc).__name__}: {exc}"[:160]] += 1

        at_once = command.get("at_once", 1)
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(work)
        seconds = time.perf_counter() - begin
        return {
            "at_once": at_once,
            "ok": len(times),
            "failed": errors.total(),
            "errors": dict(errors),
            "seconds": seconds,
            "per_s": len(times) / seconds,
            "ms": quantiles(times),
        }

    async def do_handshakes(self, node: Node, command: Json) -> Json:
        """Dial, upgrade and close, again and again."""
        dials: list[float] = []

        async def step() -> None:
            start = time.perf_counter()
            peer = await self._connect(node, command)
            dials.append((time.perf_counter() - start) * 1000)
            await node.host.disconnect(peer)

        return {**await self._repeat(command, step), "dial_ms": quantiles(dials)}

    async def do_streams(self, node: Node, command: Json) -> Json:
        """A new echo stream for each request."""
        peer = await self._connect(node, command)
        message = os.urandom(command.get("size", 32))

        async def step() -> None:
            stream = await node.host.open_stream(peer, [ECHO])
            await stream.send_all(message)
            assert await receive_exactly(stream, len(message)) == message
            await stream.aclose()

        return await self._repeat(command, step)

    async def do_echo(self, node: Node, command: Json) -> Json:
        """Requests and answers on one stream."""
        stream = await node.host.open_stream(await self._connect(node, command), [ECHO])
        message = os.urandom(command.get("size", 32))

        async def step() -> None:
            await stream.send_all(message)
            assert await receive_exactly(stream, len(message)) == message

        result = await self._repeat(command, step)
        await stream.aclose()
        return result

    async def do_ping(self, node: Node, command: Json) -> Json:
        """Round trips of libp2p's ping."""
        peer = await self._connect(node, command)
        times = [await node.host.ping(peer) * 1000 for _ in range(command.get("n", 1))]
        return {"ms": quantiles(times)}

    async def do_peers(self, node: Node, command: Json) -> Json:
        """How many peers are connected."""
        return {"n": len(node.host.peers())}

    async def do_subscribe(self, node: Node, command: Json) -> Json:
        """Every node of the process listens to a topic."""
        for each in self._nodes:
            self._nursery.start_soon(each.collect, command["topic"])
        return {}

    async def do_mesh(self, node: Node, command: Json) -> Json:
        """Sizes of meshes, of known subscribers and of connections, a node each."""
        topic, pubsubs = command["topic"], [each.pubsub for each in self._nodes if each.pubsub]
        return {
            "mesh": [len(pubsub.mesh(topic)) for pubsub in pubsubs],
            "known": [len(pubsub.peers(topic)) for pubsub in pubsubs],
            "peers": [len(each.host.peers()) for each in self._nodes],
        }

    async def do_publish(self, node: Node, command: Json) -> Json:
        """Every node publishes at a rate."""
        sent: list[int] = []
        errors: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for each in self._nodes:
                nursery.start_soon(self._publish_at_rate, each, command, sent, errors)
        seconds = time.time() - command["start_at"]
        return {"sent": sum(sent), "errors": dict(errors), "seconds": seconds}

    async def _publish_at_rate(
        self, node: Node, command: Json, sent: list[int], errors: Counter[str]
    ) -> None:
        assert node.pubsub is not None
        filler = bytes(max(0, command["size"] - MESSAGE.size))
        for number in range(round(command["rate"] * command["seconds"])):
            await trio.sleep(command["start_at"] + number / command["rate"] - time.time())
            try:
                data = MESSAGE.pack(time.time(), node.tag, number, MARK) + filler
                node.pubsub.publish(command["topic"], data)
                sent.append(1)
            except P2PError as exc:
                errors[str(exc)[:160]] += 1

    async def do_publish_one(self, node: Node, command: Json) -> Json:
        """One message of text."""
        assert node.pubsub is not None
        node.pubsub.publish(command["topic"], command["text"].encode())
        return {}

    async def do_gossip_report(self, node: Node, command: Json) -> Json:
        """What came since the last report."""
        report: Json = {
            "received": [len(each.latencies) for each in self._nodes],
            "dups": sum(each.duplicates for each in self._nodes),
            "other": [each.other for each in self._nodes],
            "lat_ms": [value for each in self._nodes for value in each.latencies],
        }
        for each in self._nodes:
            each.latencies, each.other, each.duplicates = [], [], 0
        return report

    async def do_kad_join(self, node: Node, command: Json) -> Json:
        """Connects to the bootstrap node, and waits until it is known as a member of the DHT."""
        peer = await self._connect(node, command)
        await node.host.wait_for_peer(peer)
        return {}

    async def do_kad_refresh(self, node: Node, command: Json) -> Json:
        """Refreshes one table or all; their sizes."""
        chosen = self._nodes if command.get("all") else [node]
        for each in chosen:
            assert each.kad is not None
            await each.kad.refresh()
        return {"sizes": [len(each.kad.table) for each in chosen if each.kad]}

    async def do_stats(self, node: Node, command: Json) -> Json:
        """Memory, processor time, and what the sinks read."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "rss_mb": round(rss_mb(), 1),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "sink_bytes": sum(each.sunk for each in self._nodes),
        }


def emit(line: Json) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def open_node(stack: AsyncExitStack, index: int, features: set[str]) -> Node:
    """One node, listening on loopback."""
    node = Node(index, await stack.enter_async_context(open_host(listen=[LOOPBACK])))
    if "echo" in features:
        node.host.handle(ECHO, node.serve_echo)
    if "sink" in features:
        node.host.handle(SINK, node.serve_sink)
    if "gossip" in features:
        from p2p.gossipsub import open_gossipsub  # a node without it should not pay for its import

        node.pubsub = await stack.enter_async_context(open_gossipsub(node.host))
    if "kad" in features:
        from p2p.kad import open_kad

        node.kad = await stack.enter_async_context(open_kad(node.host, protocol="/ipfs/kad/1.0.0"))
    return node


async def run(count: int, features: set[str]) -> None:
    """Until `quit` or the end of stdin."""
    async with AsyncExitStack() as stack:
        nodes = [await open_node(stack, index, features) for index in range(count)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        program = Program(nursery, nodes)
        described = [
            {
                "peer_id": str(node.host.peer_id),
                "addr": str(with_peer(node.host.addresses()[0], node.host.peer_id)),
            }
            for node in nodes
        ]
        emit({"event": "ready", "t": time.time(), "pid": os.getpid(), "rss_mb": rss_mb(), "nodes": described})
        splitter = LineSplitter(MAX_LINE)
        async for data in trio.lowlevel.FdStream(os.dup(0)):
            for line in splitter.receive_data(data):
                command = json.loads(line)
                if command["cmd"] == "quit":
                    nursery.cancel_scope.cancel()
                    return
                nursery.start_soon(program.handle, command)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.node")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--features", default="echo,sink")
    parser.add_argument("--profile", choices=["default", "tuned"], default="default")
    arguments = parser.parse_args()
    trio.run(run, arguments.nodes, set(filter(None, arguments.features.split(","))))


if __name__ == "__main__":
    main()
