"""`python -m p2p.peer`: one peer of the overlay as a process. Parses, composes and runs."""

from __future__ import annotations

import argparse
import base64
import logging
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from multiaddr import Multiaddr

from p2p.address import parse_address, split_peer, with_peer
from p2p.arguments import Parser
from p2p.blobs import BlobStore, open_blobs
from p2p.config import SECURITY, HostConfig
from p2p.data_dir import open_data_dir
from p2p.discovery import open_discovery
from p2p.errors import AddressInUse, InvalidAddress, InvalidInput, LocalProtocolError
from p2p.events import PeerConnected, PeerDisconnected
from p2p.files import FolderFiles
from p2p.gossipsub import Pubsub, open_gossipsub
from p2p.host import Host, open_host
from p2p.kad import open_kad
from p2p.keys import KeyPair
from p2p.lines import LineSplitter
from p2p.persistence import open_peerstore_file
from p2p.report import Reporter
from p2p.scope import open_scope
from p2p.transport import TcpTransport, WebSocketTransport

if TYPE_CHECKING:
    from p2p.pnet import PreSharedKey

logger = logging.getLogger(__name__)

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/0"
BLOB_CAPACITY = 4 << 30  # bytes of content kept for others
READ_SIZE = 65536  # bytes of one read from stdin
MAX_LINE = 1 << 20  # bytes of one line; gossipsub refuses larger messages
EXAMPLES = """\
examples:
  a first peer:        python -m p2p.peer --listen /ip4/0.0.0.0/tcp/4001 --data-dir ~/.atcp
  a second one:        python -m p2p.peer --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  talk over a topic:   python -m p2p.peer --bootstrap … --subscribe chat
  train in a task:     python -m p2p.peer --bootstrap … --data-dir ~/.atcp --task task.json
  over WebSocket too:  python -m p2p.peer --listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/tcp/4002/ws
  among friends:       python -m p2p.peer --private-network swarm.key --listen /ip4/0.0.0.0/tcp/4001

Events go to stdout, one a line (JSON with --json); logs go to stderr. Ctrl-C ends the peer cleanly.
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with addresses parsed. Raises `InvalidInput`."""
    parser = Parser(prog="python -m p2p.peer", description="Run one peer of the overlay.", epilog=EXAMPLES)
    add = parser.add_argument
    add(
        "--listen",
        action="append",
        metavar="MULTIADDR",
        help=f"listen here (repeatable; default {DEFAULT_LISTEN})",
    )
    add(
        "--bootstrap",
        action="append",
        default=[],
        metavar="MULTIADDR",
        help="a peer to join by, ending in /p2p/ID",
    )
    add(
        "--security",
        action="append",
        metavar="NAME",
        choices=SECURITY,
        help="encrypt with noise or tls only, in this order of preference (repeatable; default both)",
    )
    add("--private-network", type=Path, metavar="FILE", help="only meet peers that have the same key file")
    add("--ws-certificate", type=Path, metavar="FILE", help="to listen on …/tls/ws: certificate chain, PEM")
    add("--ws-key", type=Path, metavar="FILE", help="the certificate's private key, PEM")
    add("--data-dir", type=Path, metavar="DIR", help="identity and state (default: a temporary identity)")
    add(
        "--subscribe",
        action="append",
        default=[],
        metavar="TOPIC",
        help="print messages of a topic (repeatable)",
    )
    add(
        "--task",
        type=Path,
        metavar="FILE",
        help="take part in the training task that the manifest FILE describes",
    )
    add(
        "--plugin", action="append", default=[], metavar="NAME", help="enable only these plugins (repeatable)"
    )
    add("--json", action="store_true", help="one JSON object a line on stdout")
    add(
        "--log-level",
        default="warning",
        choices=["debug", "info", "warning", "error"],
        help="of the logs on stderr",
    )
    arguments = parser.parse_args(argv)
    if arguments.plugin and arguments.task is None:
        raise InvalidInput("--plugin: say with --task what the plugins are for")
    if (arguments.ws_certificate is None) != (arguments.ws_key is None):
        raise InvalidInput("--ws-certificate and --ws-key go together")
    arguments.listen = [parse_address(text) for text in arguments.listen or [DEFAULT_LISTEN]]
    if arguments.private_network is not None:
        arguments.private_network = load_private_network(arguments.private_network)
    arguments.ws_context = None
    if arguments.ws_certificate is not None:
        arguments.ws_context = load_certificate(arguments.ws_certificate, arguments.ws_key)
    arguments.bootstrap = [_bootstrap_address(text) for text in arguments.bootstrap]
    return arguments


def _bootstrap_address(text: str) -> Multiaddr:
    address = parse_address(text)
    transport, peer = split_peer(address)
    if transport is None or peer is None:
        raise InvalidAddress(
            f"--bootstrap {text}: write the whole address, like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"
        )
    return address


def load_task_service(manifest: Path, plugins: Sequence[str]) -> Any:
    """The installed service that runs training tasks, ready for `manifest`. Raises `InvalidInput`."""
    found = list(entry_points(group="p2p.services", name="task"))
    if not found:
        raise InvalidInput("--task: no installed package offers the service 'task'")
    return found[0].load()(manifest, plugins)


def load_private_network(path: Path) -> PreSharedKey:
    """The key in a private network's key file. Raises `InvalidInput`."""
    from p2p.pnet import PreSharedKey  # its cipher is for those who use it

    try:
        return PreSharedKey.parse(path.read_bytes())
    except (OSError, InvalidInput) as exc:
        raise InvalidInput(f"--private-network {path}: {exc}") from exc


def load_certificate(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a WebSocket listener shows to those who come over TLS. Raises `InvalidInput`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # an encrypted key fails, nobody is asked
    except OSError as exc:
        raise InvalidInput(f"--ws-certificate {certificate}, --ws-key {key}: {exc}") from exc
    return context


@asynccontextmanager
async def open_services(
    arguments: argparse.Namespace, key: KeyPair, data_dir: Path, report: Reporter
) -> AsyncIterator[tuple[Host, Pubsub, Any]]:
    """Everything that a peer consists of, listening and joining the network."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(
            open_host(
                key=key,
                psk=arguments.private_network,
                transports=[TcpTransport(), WebSocketTransport(server_context=arguments.ws_context)],
                config=HostConfig(security=tuple(dict.fromkeys(arguments.security or SECURITY))),
            )
        )
        if arguments.data_dir is not None:
            await stack.enter_async_context(open_peerstore_file(host, data_dir / "peers.sqlite"))
        pubsub = await stack.enter_async_context(open_gossipsub(host))
        kad = await stack.enter_async_context(open_kad(host))
        blobs = await stack.enter_async_context(
            open_blobs(host, BlobStore(FolderFiles(data_dir / "blobs"), BLOB_CAPACITY))
        )
        for address in arguments.listen:
            await host.listen(address)
        report(
            {
                "event": "listening",
                "peer_id": str(host.peer_id),
                "addrs": [str(with_peer(address, host.peer_id)) for address in host.addresses()],
            }
        )
        await stack.enter_async_context(open_discovery(host, kad, arguments.bootstrap))
        yield host, pubsub, blobs


async def run_peer(arguments: argparse.Namespace, key: KeyPair, data_dir: Path, report: Reporter) -> None:
    """Runs until SIGINT or SIGTERM, or until nobody reads what we report."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_scope() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            service = None
            if arguments.task is not None:  # a plugin may import a whole framework: off the event loop
                load = partial(load_task_service, arguments.task, arguments.plugin)
                service = await trio.to_thread.run_sync(load, abandon_on_cancel=True)
            async with open_services(arguments, key, data_dir, report) as (host, pubsub, blobs):
                nursery.start_soon(report_peers, host, report)
                for topic in arguments.subscribe:
                    nursery.start_soon(report_messages, pubsub, topic, report)
                if arguments.subscribe:
                    nursery.start_soon(publish_lines, pubsub, arguments.subscribe[0], sys.stdin.fileno())
                if service is not None:
                    nursery.start_soon(service.run, host, pubsub, blobs, data_dir, report)
                await trio.sleep_forever()
    report({"event": "closed"})


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


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
