"""`python -m federated.demo.liar`: a peer as `python -m p2p.peer` runs it, with one rule changed.

It votes twice. With each vote it signs a second one that excludes the first: for a block that does not
exist where it votes for one, to nullify where it finalizes. One half of its neighbours is sent the first,
the other half the second. In everything else it is an honest member, and knows nothing of its lies.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from federated.equivocation import TwoFaced
from p2p.data_dir import open_data_dir
from p2p.errors import InvalidInput
from p2p.gossipsub.router import Router
from p2p.keys import KeyPair
from p2p.options import parse_arguments
from p2p.overlay import open_overlay
from p2p.report import Reporter, report_listening
from p2p.scope import open_scope_until_signal
from p2p.services import Service, load_task_service

Run = Callable[[argparse.Namespace, KeyPair, Reporter], Awaitable[None]]


async def run_liar(arguments: argparse.Namespace, key: KeyPair, report: Reporter) -> None:
    """Runs until SIGINT or SIGTERM."""
    async with open_scope_until_signal():
        service = load_task_service(arguments.task, arguments.plugin, arguments.tell, arguments.plugin_memory)
        assert service is not None  # ours is installed with this program
        await serve(service, arguments, key, report, make_router=TwoFaced)


async def serve(
    service: Service,
    arguments: argparse.Namespace,
    key: KeyPair,
    report: Reporter,
    make_router: Callable[..., Router] = Router,
) -> None:
    """A peer with `service`, until it is cancelled."""
    async with (
        open_overlay(
            key,
            arguments.data_dir,
            listen=arguments.listen,
            bootstrap=arguments.bootstrap,
            validators=service.validators(),
            make_router=make_router,
        ) as overlay,
        service.open(overlay, arguments.data_dir, report),
    ):
        report_listening(overlay.host, report)
        await trio.sleep_forever()


def main(argv: Sequence[str] | None = None, run: Run = run_liar) -> int:
    """Runs one liar; the options are those of `python -m p2p.peer`, and --data-dir is required."""
    try:
        arguments = parse_arguments(argv)
        if arguments.data_dir is None:
            raise InvalidInput("--data-dir is required: a liar has a name to lose")
        logging.basicConfig(stream=sys.stderr, level=arguments.log_level.upper())
        with open_data_dir(Path(arguments.data_dir)) as key:
            trio.run(run, arguments, key, Reporter(sys.stdout, as_json=arguments.json))
    except InvalidInput as exc:
        print(f"federated.demo.liar: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the demo is gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
