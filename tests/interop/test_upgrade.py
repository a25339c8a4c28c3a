"""How a connection comes to be, or does not: what is offered, and who answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from p2p.address import parse_address, split_peer
from p2p.config import HostConfig
from p2p.errors import DialFailed
from p2p.host import open_host
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.interop.cases import DEADLINE
from tests.interop.installed import INSTALL, Implementation
from tests.processes import Process, run_process

pytestmark = pytest.mark.timeout(700)  # the first test may install the packages

LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")

both = pytest.mark.parametrize("name", list(INSTALL))
each_security = pytest.mark.parametrize("security", ["noise", "tls"])


def program(implementation: Callable[[str], Implementation], name: str, security: str) -> list[str]:
    return [*implementation(name).command, "--security", security]


async def whereabouts(process: Process):
    """(address, peer) of a program that has just started."""
    return split_peer(parse_address((await process.wait_for("ready"))["addrs"][0]))


@both
@each_security
async def test_a_host_that_offers_both_finds_what_a_peer_has(
    implementation: Callable[[str], Implementation], name: str, security: str
) -> None:
    async with run_process(program(implementation, name, security)) as process, open_host() as host:
        address, peer = await whereabouts(process)
        with trio.fail_after(DEADLINE):
            await host.connect(peer, [address])
            assert await host.ping(peer) > 0


@both
@each_security
async def test_a_host_that_takes_both_is_found_by_a_peer_with_one(
    implementation: Callable[[str], Implementation], name: str, security: str
) -> None:
    async with (
        run_process(program(implementation, name, security)) as process,
        open_host(listen=[LOOPBACK]) as host,
    ):
        _, peer = await whereabouts(process)
        await process.command("dial", addr=f"{host.addresses()[0]}/p2p/{host.peer_id}")
        with trio.fail_after(DEADLINE):
            assert await host.ping(peer) > 0


@both
@pytest.mark.parametrize(("ours", "theirs"), [("noise", "tls"), ("tls", "noise")])
async def test_without_a_common_security_a_dial_fails_in_both_directions(
    implementation: Callable[[str], Implementation], name: str, ours: str, theirs: str
) -> None:
    config = HostConfig(security=(ours,))
    async with (
        run_process(program(implementation, name, theirs)) as process,
        open_host(listen=[LOOPBACK], config=config) as host,
    ):
        address, peer = await whereabouts(process)
        with trio.fail_after(DEADLINE), pytest.raises(DialFailed):
            await host.connect(peer, [address])
        with pytest.raises(AssertionError, match="error"):
            await process.command("dial", addr=f"{host.addresses()[0]}/p2p/{host.peer_id}")
        assert host.peers() == []


@both
@each_security
async def test_a_peer_that_is_not_the_one_we_dialed_is_refused(
    implementation: Callable[[str], Implementation], name: str, security: str
) -> None:
    somebody_else = PeerId.from_public_key(KeyPair.generate().public)
    async with run_process(program(implementation, name, security)) as process, open_host() as host:
        address, peer = await whereabouts(process)
        with trio.fail_after(DEADLINE), pytest.raises(DialFailed, match=str(peer)):
            await host.connect(somebody_else, [address])
        assert host.peers() == []


@both
@each_security
async def test_a_peer_that_wanted_another_than_us_refuses(
    implementation: Callable[[str], Implementation], name: str, security: str
) -> None:
    somebody_else = PeerId.from_public_key(KeyPair.generate().public)
    async with (
        run_process(program(implementation, name, security)) as process,
        open_host(listen=[LOOPBACK]) as host,
    ):
        await process.wait_for("ready")
        with pytest.raises(AssertionError, match="error"):
            await process.command("dial", addr=f"{host.addresses()[0]}/p2p/{somebody_else}")
