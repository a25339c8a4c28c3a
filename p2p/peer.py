"""`python -m p2p.peer`: one peer of the overlay as a process. Parses, composes and runs."""

from __future__ import annotations

import argparse
import base64
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import trio

from p2p.config import SECURITY
from p2p.data_dir import open_data_dir
from p2p.errors import AddressInUse, InvalidInput, LocalProtocolError
from p2p.events import PeerConnected, PeerDisconnected
from p2p.gossipsub import Pubsub
from p2p.host import Host
from p2p.keys import KeyPair
from p2p.lines import LineSplitter
from p2p.options import parse_arguments
from p2p.overlay import open_overlay
from p2p.report import Reporter, report_listening
from p2p.scope import open_scope_until_signal
from p2p.services import Service, load_task_service

logger = logging.getLogger(__name__)

READ_SIZE = 65536  # bytes of one read from stdin
MAX_LINE = 1 << 20  # bytes of one line; gossipsub refuses larger messages


async def run_peer(arguments: argparse.Namespace, key: KeyPair, data_dir: Path, report: Reporter) -> None:
    """Runs until SIGINT or SIGTERM, or until nobody reads what we report."""
    async with open_scope_until_signal() as nursery:
        tasks = await _load_service(arguments)
        async with open_overlay(
            key,
            data_dir,
            listen=arguments.listen,
            bootstrap=arguments.bootstrap,
            security=arguments.security or SECURITY,
            psk=arguments.private_network,
            ws_context=arguments.ws_context,
            remembers=arguments.data_dir is not None,
            validators=tasks.validators() if tasks is not None else None,
        ) as overlay:
            service = tasks.open(overlay, arguments.data_dir, report) if tasks is not None else nullcontext()
            async with service:
                report_listening(overlay.host, report)
                nursery.start_soon(report_peers, overlay.host, report)
                for topic in arguments.subscribe:
                    nursery.start_soon(report_messages, overlay.pubsub, topic, report)
                if arguments.subscribe:
                    first, stdin = arguments.subscribe[0], sys.stdin.fileno()
                    nursery.start_soon(publish_lines, overlay.pubsub, first, stdin)
                await trio.sleep_forever()
    report({"event": "closed"})


async def _load_service(arguments: argparse.Namespace) -> Service | None:
    """What runs tasks: for a peer that has some, or has a folder by which it can be told of some later."""
    if not arguments.task and arguments.data_dir is None:
        return None
    names = (arguments.plugin, arguments.tell, arguments.plugin_memory)
    load = partial(load_task_service, arguments.task, *names)
    return await trio.to_thread.run_sync(load, abandon_on_cancel=True)  # it may import a whole framework


async def report_peers(host: Host, report: Reporter) -> None:
    """Reports who comes and goes."""
    with host.events() as events:
        async for event in events:
            if isinstance(event, PeerConnected):
                connection = host.connection(event.peer)
                address = str(connection.remote_address) if connection is not None else None
                report(
                    {
                        "event": "connected",
                        "peer": str(event.peer),
                        "addr": address,
                        "outbound": event.outbound,
                    }
                )
            elif isinstance(event, PeerDisconnected):
                report({"event": "disconnected", "peer": str(event.peer)})


async def report_messages(pubsub: Pubsub, topic: str, report: Reporter) -> None:
    """Reports every message of `topic`."""
    with pubsub.subscribe(topic) as subscription:
        async for message in subscription:
            data = base64.b64encode(message.data).decode("ascii")
            report({"event": "message", "topic": topic, "from": str(message.sender), "data": data})


async def publish_lines(pubsub: Pubsub, topic: str, descriptor: int) -> None:
    """Publishes each line that comes from `descriptor`, once there is somebody to hear it."""
    splitter = LineSplitter(MAX_LINE)
    data = b"\n"
    while data:
        # os.read in a thread: works for files, pipes and terminals, and holds no lock of Python's
        # stdin object when the process ends under it
        data = await trio.to_thread.run_sync(os.read, descriptor, READ_SIZE, abandon_on_cancel=True)
        dropped = splitter.dropped
        for line in splitter.receive_data(data) if data else splitter.finish():
            await pubsub.wait_for_peers(topic, 1)
            try:
                pubsub.publish(topic, line)
            except LocalProtocolError as exc:
                logger.error("a line of stdin is not published: %s", exc)
        if splitter.dropped > dropped:
            logger.error("a line of stdin is not published: it is over %d bytes", MAX_LINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one peer; returns the exit status: 0 after a signal, 2 when the input is unusable."""
    try:
        arguments = parse_arguments(argv)
        logging.basicConfig(
            stream=sys.stderr,
            level=arguments.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        report = Reporter(sys.stdout, as_json=arguments.json)
        with ExitStack() as stack:
            folder = arguments.data_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="atcp-"))
            )
            key = stack.enter_context(open_data_dir(folder))
            trio.run(run_peer, arguments, key, folder, report)
    except (InvalidInput, AddressInUse) as exc:
        print(f"p2p.peer: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before there was anything to close
        return 0
    except BrokenPipeError:  # whoever read our events is gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
