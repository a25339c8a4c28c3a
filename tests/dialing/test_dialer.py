"""Whole dials: transports that are told how to behave, names from a table, a virtual clock."""

from __future__ import annotations

import re
from collections import namedtuple
from contextlib import asynccontextmanager
from ipaddress import ip_interface

import psutil
import pytest
import trio

from p2p.address import parse_address
from p2p.config import HostConfig
from p2p.dialing import Dialer
from p2p.dialing.dialer import local_interfaces
from p2p.errors import AuthenticationFailed, ConnectionLost, DialFailed, InvalidAddress
from p2p.peer_id import PeerId
from tests.byte_streams import cancel_at_each_await
from tests.support import key_number

PEER, OTHER = (PeerId.from_public_key(key_number(number).public) for number in (1, 2))


class Place:
    """What is made by dialing an address, raw or upgraded."""

    def __init__(self, address):
        self.address = address
        self.closed = False

    async def aclose(self):
        self.closed = True
        await trio.lowlevel.checkpoint()


class World:
    """A transport of /ip4, /ip6 addresses without udp, an upgrade, and names: {text: behaviour}.

    A behaviour is "refused", "silent", "unreachable" (no answer to TCP), "liar", or a number of seconds.
    """

    def __init__(self, places=(), names=(), **config):
        self.places = {parse_address(text): what for text, what in dict(places).items()}
        self.names = dict(names)
        self.opened = []
        self.dialed = []
        self.at_once = self.most_at_once = 0
        self.dialer = Dialer([self], self.upgrade, self, HostConfig(**config))

    def can_dial(self, address):
        return str(address).startswith(("/ip4/", "/ip6/")) and "/udp/" not in str(address)

    async def dial(self, address):
        self.dialed.append(str(address))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            what = self.places.get(address, "refused")
            if what == "unreachable":
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            if what == "refused":
                raise ConnectionLost(f"{address}: refused")
        finally:
            self.at_once -= 1
        self.opened.append(Place(address))
        return self.opened[-1]

    async def upgrade(self, raw, peer):
        what = self.places[raw.address]
        try:
            if what == "silent":
                await trio.sleep_forever()
            if what == "liar":
                raise AuthenticationFailed("the key is of another peer")
            await trio.sleep(what)
        except BaseException:
            raw.closed = True
            raise
        return raw

    async def ask(self, query):
        await trio.lowlevel.checkpoint()
        values = self.names.get(query.name)
        if values == "silent":
            await trio.sleep_forever()
        if values is None:
            raise ConnectionLost(f"cannot resolve {query.name}: no such name")
        return values

    async def reach(self, *texts, peer=PEER):
        """The text of the address that won."""
        address, muxed = await self.dialer.dial(peer, [parse_address(text) for text in texts])
        assert muxed.address == address
        assert [place for place in self.opened if not place.closed] == [muxed]
        return str(address)

    async def fail(self, *texts, peer=PEER):
        """The reasons of a dial that fails."""
        with pytest.raises(DialFailed) as caught:
            await self.reach(*texts, peer=peer)
        assert all(place.closed for place in self.opened)
        return caught.value.reasons


ONE, TWO, THREE = (f"/ip4/9.9.9.{number}/tcp/1" for number in (1, 2, 3))


async def test_a_silent_address_costs_a_quarter_of_a_second_where_another_answers(autojump_clock):
    world = World({ONE: "silent", TWO: 0.01})
    start = trio.current_time()
    assert await world.reach(ONE, TWO) == TWO
    assert trio.current_time() - start == pytest.approx(0.26)


async def test_each_failure_is_a_reason_and_the_next_address_starts_at_once(autojump_clock):
    world = World({ONE: "refused", TWO: "liar", THREE: 0.0})
    start = trio.current_time()
    assert await world.reach(ONE, TWO, THREE) == THREE
    assert trio.current_time() == start
    world = World({ONE: "refused", TWO: "liar"})
    assert await world.fail(ONE, TWO) == [f"{ONE}: refused", f"{TWO}: the key is of another peer"]


async def test_a_transport_that_does_not_connect_has_its_own_deadline(autojump_clock):
    world = World({ONE: "unreachable"}, connect_timeout=2.0)
    start = trio.current_time()
    assert await world.fail(ONE) == [f"{ONE}: no connection within 2 s"]
    assert trio.current_time() - start == 2


async def test_who_is_silent_until_the_deadline_is_named_and_left_alone(autojump_clock):
    world = World({ONE: "silent"}, {"slow.org": "silent"}, dial_timeout=3)
    name = "/dns4/slow.org/tcp/1"
    start = trio.current_time()
    reasons = await world.fail(ONE, name)
    assert trio.current_time() - start == 3
    assert reasons == [f"{ONE}: no answer", "gave up after 3 s", f"{name}: no answer about slow.org"]
    [reason] = await world.fail(ONE)
    assert "failed before, next try in 0.5 s" in reason


async def test_names_are_resolved_while_addresses_are_tried(autojump_clock):
    names = {
        "_dnsaddr.a.org": ["dnsaddr=/dns4/b.org/tcp/1"],
        "b.org": ["9.9.9.2"],
        "slow.org": "silent",
    }
    world = World({ONE: "silent", TWO: 0.0}, names)
    assert await world.reach(ONE, "/dns4/slow.org/tcp/1", "/dnsaddr/a.org") == TWO
    assert world.dialed == [ONE, TWO]


async def test_a_name_that_is_not_known_is_a_reason(autojump_clock):
    assert await World().fail("/dns4/a.org/tcp/1") == [
        "/dns4/a.org/tcp/1: cannot resolve a.org: no such name"
    ]


async def test_an_address_of_another_peer_is_not_dialed(autojump_clock):
    names = {"_dnsaddr.a.org": [f"dnsaddr={ONE}/p2p/{OTHER}"], "b.org": ["9.9.9.2"]}
    world = World({ONE: 0.0, TWO: 0.0}, names)
    reasons = await world.fail(f"{ONE}/p2p/{OTHER}", f"/dns4/b.org/tcp/1/p2p/{OTHER}", "/dnsaddr/a.org")
    assert [re.sub(str(OTHER), "X", reason) for reason in reasons] == [
        "/dns4/b.org/tcp/1/p2p/X: is the address of another peer",
        f"{ONE}/p2p/X: is the address of another peer",
        "/dnsaddr/a.org: _dnsaddr.a.org has no address of this peer",
    ]
    assert world.dialed == []
    assert await world.reach(f"{ONE}/p2p/{PEER}") == ONE


@pytest.mark.parametrize(
    "text", ["/ip4/9.9.9.9/udp/1/quic-v1", f"/p2p/{PEER}", "/memory/1", f"/memory/1/p2p/{PEER}/p2p-circuit"]
)
async def test_an_address_that_no_transport_dials_is_a_reason(text, autojump_clock):
    assert await World().fail(text) == [f"{text}: no transport for this kind of address"]


async def test_an_address_of_one_link_is_refused_with_its_reason(autojump_clock):
    text = "/ip6zone/eth0/ip6/fe80::1/tcp/1"
    assert await World().fail(text) == [f"{text}: a zone has a meaning on one machine only"]


async def test_a_peer_without_addresses_has_no_reasons(autojump_clock):
    assert await World().fail() == []


async def test_reasons_and_attempts_are_bounded(autojump_clock):
    world = World()
    reasons = await world.fail(*(f"/ip4/9.9.9.9/tcp/{port}" for port in range(1, 51)))
    assert len(world.dialed) == 25
    assert (len(reasons), reasons[-1]) == (26, "25 more addresses were not tried")
    reasons = await world.fail(*(f"/ip4/9.9.9.9/udp/{port}" for port in range(1, 51)))
    assert (len(reasons), reasons[-1]) == (26, "25 more addresses were not tried")


async def test_eight_attempts_at_one_peer_run_at_once(autojump_clock):
    texts = [f"/ip4/9.9.9.9/tcp/{port}" for port in range(1, 21)]
    world = World(dict.fromkeys(texts, "unreachable"), connect_timeout=10)
    await world.fail(*texts)
    assert world.most_at_once == 8


async def test_the_host_makes_a_bounded_number_of_attempts_and_the_rest_wait(autojump_clock):
    texts = [f"/ip4/9.9.9.9/tcp/{port}" for port in range(1, 11)]
    world = World(dict.fromkeys(texts, "unreachable"), max_dials=2, connect_timeout=4, dial_timeout=10)
    outcomes = []

    async def dial(text):
        with pytest.raises(DialFailed) as caught:
            await world.dialer.dial(PEER, [parse_address(text)])
        outcomes.append((trio.current_time() - start, caught.value.reasons[0]))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for text in texts:
            nursery.start_soon(dial, text)
    assert world.most_at_once == 2
    assert [when for when, _ in sorted(outcomes)] == [4, 4, 8, 8, *[10] * 6]
    assert sum(reason.endswith("no connection within 4 s") for _, reason in outcomes) == 4
    assert sum(reason.endswith("no answer") for _, reason in outcomes) == 2
    waited = [parse_address(text) for text in texts if f"{text}: " not in str(outcomes)]
    assert len(waited) == 4  # their address did nothing wrong
    assert all(world.dialer.backoff.remaining(each, trio.current_time()) == 0 for each in waited)


async def test_a_dial_that_is_cancelled_leaves_nothing_open(autojump_clock):
    @asynccontextmanager
    async def open_world():
        world = World({ONE: "refused", TWO: "silent", THREE: 0.1}, {"a.org": ["9.9.9.3"]})
        before = trio.lowlevel.current_statistics().tasks_living
        won = []

        async def operation():
            addresses = [parse_address(text) for text in (ONE, TWO, "/dns4/a.org/tcp/1")]
            won.append((await world.dialer.dial(PEER, addresses))[1])

        yield operation
        assert [place for place in world.opened if not place.closed] == won
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert world.dialer.slots.borrowed_tokens == 0

    assert await cancel_at_each_await(open_world) >= 3


async def test_a_name_to_listen_on_stands_for_all_of_its_addresses(autojump_clock):
    world = World(names={"a.org": ["9.9.9.1", "::1"], "slow.org": "silent"})
    resolve = world.dialer.resolve
    assert list(map(str, await resolve(parse_address("/dns/a.org/tcp/1")))) == [ONE, "/ip6/::1/tcp/1"]
    assert await resolve(parse_address(ONE)) == [parse_address(ONE)]
    with pytest.raises(InvalidAddress, match="no such name"):
        await resolve(parse_address("/dns/b.org/tcp/1"))
    with pytest.raises(InvalidAddress, match=r"no answer about slow\.org"):
        await resolve(parse_address("/dns/slow.org/tcp/1"))


def test_the_interfaces_of_this_machine_have_networks(monkeypatch):
    assert ip_interface("127.0.0.1/8") in local_interfaces()
    entry = namedtuple("Entry", "family address netmask")
    table = {
        "eth0": [
            entry(2, "10.1.2.3", "255.255.0.0"),
            entry(10, "fe80::1%eth0", "ffff:ffff:ffff:ffff::"),
            entry(17, "00:00:00:00:00:00", None),
            entry(2, "10.8.0.1", None),
        ]
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: table)
    assert local_interfaces() == [ip_interface("10.1.2.3/16"), ip_interface("fe80::1/64")]
