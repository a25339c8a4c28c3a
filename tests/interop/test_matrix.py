"""Other implementations × transports × securities × who dials: every case on one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from p2p.address import parse_address, split_peer
from p2p.config import HostConfig
from p2p.host import open_host
from tests.interop.cases import CASES, DEADLINE
from tests.interop.dialect import Ours, Theirs
from tests.interop.installed import INSTALL, Implementation
from tests.interop.table import PAGE, Combination, combinations, page
from tests.processes import run_process

pytestmark = pytest.mark.timeout(700)  # the first test may install the packages

SUFFIXES = {"tcp": "", "ws": "/ws"}

passed: dict[Combination, list[str]] = {}
"""What this run found so far."""


@asynccontextmanager
async def open_pair(
    other: Implementation, transport: str, security: str, dialer: str
) -> AsyncIterator[tuple[Ours, Theirs]]:
    """A host and a program of `other`, connected as asked."""
    command = [*other.command, "--transport", transport, "--security", security]
    listen = parse_address("/ip4/127.0.0.1/tcp/0" + SUFFIXES[transport])
    async with run_process(command) as process:
        ready = await process.wait_for("ready")
        address, peer = split_peer(parse_address(ready["addrs"][0]))
        async with open_host(config=HostConfig(security=(security,))) as host, trio.open_nursery() as nursery:
            sides = Ours(host, peer, nursery), Theirs(process, host.peer_id)
            if dialer == "we":
                await host.connect(peer, [address])
            else:
                await host.listen(listen)
                [own] = host.addresses()
                await process.command("dial", addr=f"{own}/p2p/{host.peer_id}")
            yield sides
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("combination", combinations(list(INSTALL)), ids=str)
async def test_every_case_works(
    implementation: Callable[[str], Implementation], combination: Combination
) -> None:
    other = implementation(combination.implementation)
    worked = passed.setdefault(combination, [])
    async with open_pair(other, combination.transport, combination.security, combination.dialer) as sides:
        for name, case in CASES.items():
            try:
                with trio.fail_after(DEADLINE):
                    await case(*sides)
            except BaseException as exc:
                exc.add_note(f"in the case {name!r}")
                raise
            worked.append(name)


def test_the_documentation_says_what_this_run_found(implementation: Callable[[str], Implementation]) -> None:
    found = page([implementation(name) for name in INSTALL], passed, {})
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != found:
        PAGE.write_text(found, encoding="utf-8")
        pytest.fail(f"{PAGE.name} said something else and is written anew: look at it and commit it")
