"""The command line of `python -m p2p.peer`: its options, and the files that some of them name."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from p2p.address import parse_address, split_peer
from p2p.arguments import Parser, number
from p2p.config import SECURITY
from p2p.errors import InvalidAddress, InvalidInput

if TYPE_CHECKING:
    from p2p.pnet import PreSharedKey

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/0"
MIN_PLUGIN_MEMORY = 128  # MiB; less is not enough for the interpreter and numpy
EXAMPLES = """\
examples:
  a first peer:        python -m p2p.peer --listen /ip4/0.0.0.0/tcp/4001 --data-dir ~/.atcp
  a second one:        python -m p2p.peer --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  talk over a topic:   python -m p2p.peer --bootstrap … --subscribe chat
  train in a task:     python -m p2p.peer --bootstrap … --data-dir ~/.atcp --task task.json
  and as told later:   python -m p2p.peer --bootstrap … --data-dir ~/.atcp   (see: atcp task --help)
  over WebSocket too:  python -m p2p.peer --listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/tcp/4002/ws
  among friends:       python -m p2p.peer --private-network swarm.key --listen /ip4/0.0.0.0/tcp/4001

Events go to stdout, one a line (JSON with --json); logs go to stderr. Ctrl-C ends the peer cleanly.
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with addresses parsed. Raises `InvalidInput`."""
    parser = Parser(prog="python -m p2p.peer", description="Run one peer of the overlay.", epilog=EXAMPLES)
    _add_overlay(parser.add_argument)
    _add_use(parser.add_argument)
    return _understood(parser.parse_args(argv))


def _add_overlay(add: Callable[..., object]) -> None:
    """Whom the peer meets, how, and as whom."""
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


def _add_use(add: Callable[..., object]) -> None:
    """What the peer does there, and what it tells of it."""
    add(
        "--subscribe",
        action="append",
        default=[],
        metavar="TOPIC",
        help="print messages of a topic (repeatable)",
    )
    add(
        "--task",
        action="append",
        default=[],
        metavar="FILE|ID",
        help="take part in the training task that a file describes, or that has this id (repeatable)",
    )
    add(
        "--plugin", action="append", default=[], metavar="NAME", help="enable only these plugins (repeatable)"
    )
    add(
        "--tell",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="tell a listener too what the tasks report, like tensorboard=runs (repeatable)",
    )
    add(
        "--plugin-memory",
        type=number(int, MIN_PLUGIN_MEMORY, 1 << 24),
        metavar="MIB",
        help="memory for the plugins of each task (default: a quarter of the machine's)",
    )
    add("--json", action="store_true", help="one JSON object a line on stdout")
    add(
        "--log-level",
        default="warning",
        choices=["debug", "info", "warning", "error"],
        help="of the logs on stderr",
    )


def _understood(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, when they go together, with what their texts and files stand for."""
    if arguments.plugin and not arguments.task and arguments.data_dir is None:
        raise InvalidInput("--plugin: say with --task what the plugins are for")
    if arguments.tell and not arguments.task and arguments.data_dir is None:
        raise InvalidInput("--tell: only tasks report something, see --task")
    if (arguments.ws_certificate is None) != (arguments.ws_key is None):
        raise InvalidInput("--ws-certificate and --ws-key go together")
    arguments.listen = [parse_address(text) for text in arguments.listen or [DEFAULT_LISTEN]]
    if arguments.private_network is not None:
        arguments.private_network = load_private_network(arguments.private_network)
    if arguments.plugin_memory is not None:
        arguments.plugin_memory <<= 20
    arguments.ws_context = None
    if arguments.ws_certificate is not None:
        arguments.ws_context = load_certificate(arguments.ws_certificate, arguments.ws_key)
    arguments.bootstrap = [bootstrap_address(text) for text in arguments.bootstrap]
    return arguments


def bootstrap_address(text: str) -> Multiaddr:
    """The address of a peer with its id. Raises `InvalidAddress`."""
    address = parse_address(text)
    transport, peer = split_peer(address)
    if transport is None or peer is None:
        raise InvalidAddress(
            f"--bootstrap {text}: write the whole address, like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"
        )
    return address


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
