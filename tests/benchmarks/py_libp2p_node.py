"""A py-libp2p node for `make bench`: JSON commands on stdin, JSON answers on stdout.

Runs with the interpreter of py-libp2p's own virtual environment, so it imports nothing of ours.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.ping import PingService
from libp2p.rcmgr.manager import ResourceManager
from libp2p.tools.utils import info_from_p2p_addr
from multiaddr import Multiaddr

ECHO = "/bench/echo/1"
SINK = "/bench/sink/1"
READ = 65536  # bytes
STATM = Path("/proc/self/statm")

logging.disable(logging.WARNING)


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve_echo(stream):
    try:
        while data := await stream.read(READ):
            await stream.write(data)
        await stream.close()
    except Exception:  # its streams raise many kinds of end of stream
        return


async def serve_sink(stream):
    try:
        while await stream.read(READ):
            pass
    except Exception:  # the end, too
        pass
    await stream.write(b"\1")
    await stream.close()


async def read_exactly(stream, size):
    data = b""
    while len(data) < size:
        piece = await stream.read(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def quantiles(values):
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(part * len(ordered)))] for part in (0.5, 0.99)]
    return {"p50": at[0], "p99": at[1], "max": ordered[-1]}


async def repeat(command, step):
    times, begin = [], time.perf_counter()
    for _ in range(command["n"]):
        start = time.perf_counter()
        if start - begin > command.get("max_seconds", 40):
            break
        await step()
        times.append((time.perf_counter() - start) * 1000)
    elapsed = time.perf_counter() - begin
    return {"ok": len(times), "per_s": len(times) / elapsed, "ms": quantiles(times)}


async def connect(host, command):
    info = info_from_p2p_addr(Multiaddr(command["addr"]))
    await host.connect(info)
    return info.peer_id


async def do_connect(host, command):
    await connect(host, command)
    return {}


async def do_ping(host, command):
    peer, service = await connect(host, command), PingService(host)
    return await repeat(command, lambda: service.ping(peer))


async def do_handshakes(host, command):
    async def step():
        await host.disconnect(await connect(host, command))

    return await repeat(command, step)


async def do_streams(host, command):
    peer, message = await connect(host, command), os.urandom(command["size"])

    async def step():
        stream = await host.new_stream(peer, [ECHO])
        await stream.write(message)
        await read_exactly(stream, len(message))
        await stream.close()

    return await repeat(command, step)


async def do_echo(host, command):
    stream = await host.new_stream(await connect(host, command), [ECHO])
    message = os.urandom(command["size"])

    async def step():
        await stream.write(message)
        await read_exactly(stream, len(message))

    result = await repeat(command, step)
    await stream.close()
    return result


async def do_throughput(host, command):
    stream = await host.new_stream(await connect(host, command), [SINK])
    chunk, sent, begin = bytes(command["chunk"]), 0, time.perf_counter()
    while sent < command["bytes"] and time.perf_counter() - begin < command.get("max_seconds", 40):
        await stream.write(chunk)
        sent += len(chunk)
    await stream.close_write()
    await read_exactly(stream, 1)
    seconds = time.perf_counter() - begin
    return {"bytes": sent, "seconds": seconds, "MBps": sent / seconds / 1e6}


def rss_mb():
    return int(STATM.read_text().split()[1]) * 4096 / (1 << 20)


async def do_stats(host, command):
    return {"rss_mb": rss_mb()}


async def handle(hosts, command):
    try:
        host = hosts[command.get("node", 0)]
        with trio.fail_after(command.get("timeout", 55)):
            result = await globals()["do_" + command["cmd"]](host, command)
        emit({"id": command["id"], "ok": True, "result": result})
    except Exception as exc:  # whatever went wrong is the answer
        emit({"id": command["id"], "ok": False, "error": f"{type(exc).__name__}: {exc}"[:500]})


async def run_host(task_status):
    manager = ResourceManager(enable_rate_limiting=False)
    host = new_host(key_pair=create_new_key_pair(), resource_manager=manager)
    host.set_stream_handler(ECHO, serve_echo)
    host.set_stream_handler(SINK, serve_sink)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        task_status.started(host)
        await trio.sleep_forever()


async def main():
    count = int(sys.argv[sys.argv.index("--nodes") + 1])
    async with trio.open_nursery() as nursery:
        hosts = [await nursery.start(run_host) for _ in range(count)]
        nodes = []
        for host in hosts:
            address, peer = str(host.get_addrs()[0]), host.get_id()
            nodes.append({"addr": address if "/p2p/" in address else f"{address}/p2p/{peer}"})
        emit({"event": "ready", "t": time.time(), "nodes": nodes})
        async for line in trio.wrap_file(sys.stdin):
            nursery.start_soon(handle, hosts, json.loads(line))
        os._exit(0)


if __name__ == "__main__":
    trio.run(main)
