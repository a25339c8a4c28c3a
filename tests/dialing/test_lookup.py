"""Names of this system, and a DNS server of our own on loopback."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
import trio

from p2p.address import parse_address
from p2p.dialing.lookup import SystemLookup, resolve
from p2p.dialing.resolver import Query, Record, Resolution
from p2p.errors import ConnectionLost
from tests.byte_streams import cancel_at_each_await

LONG = "dnsaddr=/dns4/" + "a" * 200 + "/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


@asynccontextmanager
async def open_dns(texts):
    """A lookup that asks a server which answers {name: [text, …]}; None is no answer at all."""

    async def serve():
        while True:
            data, client = await server.recvfrom(4096)
            question = dns.message.from_wire(data)
            [asked] = question.question
            answer = dns.message.make_response(question)
            values = texts.get(asked.name.to_text(omit_final_dot=True), ())
            if values is None:
                continue
            if values:
                quoted = [
                    " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)) for text in values
                ]
                answer.answer.append(dns.rrset.from_text_list(asked.name, 60, "IN", "TXT", quoted))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            await server.sendto(answer.to_wire(), client)

    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))
        lookup = SystemLookup()
        lookup._resolver = dns.asyncresolver.Resolver(configure=False)
        lookup._resolver.nameservers = ["127.0.0.1"]
        lookup._resolver.port = server.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield lookup
            nursery.cancel_scope.cancel()


async def test_texts_come_whole_however_they_are_cut_into_strings():
    async with open_dns({"_dnsaddr.example.org": [LONG, "other"]}) as lookup:
        assert sorted(await lookup.ask(Query(Record.TEXT, "_dnsaddr.example.org"))) == sorted([LONG, "other"])


async def test_a_name_that_does_not_exist_is_a_typed_error():
    async with open_dns({}) as lookup:
        with pytest.raises(ConnectionLost, match="does not exist"):
            await lookup.ask(Query(Record.TEXT, "_dnsaddr.example.org"))


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "x." * 200])
async def test_a_name_that_is_none_is_a_typed_error(name):
    async with open_dns({}) as lookup:
        for record in Record:
            with pytest.raises(ConnectionLost, match="cannot resolve"):
                await lookup.ask(Query(record, name))


async def test_a_system_without_dns_servers_is_a_typed_error(monkeypatch):
    def missing():
        raise dns.resolver.NoResolverConfiguration("/etc/resolv.conf is missing")

    monkeypatch.setattr(dns.asyncresolver, "Resolver", missing)
    with pytest.raises(ConnectionLost, match="cannot resolve"):
        await SystemLookup().ask(Query(Record.TEXT, "_dnsaddr.example.org"))


@pytest.mark.parametrize(("record", "ip"), [(Record.IP4, "127.0.0.1"), (Record.ANY, "127.0.0.1")])
async def test_names_that_only_this_system_knows_are_found(record, ip):
    assert ip in await SystemLookup().ask(Query(record, "localhost"))


async def test_a_question_that_is_cancelled_leaves_no_task():
    async with open_dns({"_dnsaddr.example.org": None}) as lookup:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lookup.ask, Query(Record.TEXT, "_dnsaddr.example.org"))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_dnsaddr_leads_through_the_dns_to_addresses_of_this_system():
    texts = {
        "_dnsaddr.example.org": ["dnsaddr=/dnsaddr/deeper.example.org"],
        "_dnsaddr.deeper.example.org": ["dnsaddr=/dns4/localhost/tcp/4001"],
    }
    found = []
    async with open_dns(texts) as lookup:
        resolution = Resolution([parse_address("/dnsaddr/example.org")])
        await resolve(resolution, lookup, found.extend)
    assert list(map(str, found)) == ["/ip4/127.0.0.1/tcp/4001"]
    assert resolution.reasons == []


def test_the_dns_library_is_not_loaded_by_a_host_that_meets_no_dnsaddr():
    program = "import sys, p2p.host; sys.exit(any(name.partition('.')[0] == 'dns' for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "query", [Query(Record.ANY, "localhost"), Query(Record.TEXT, "_dnsaddr.example.org")]
)
async def test_a_question_can_be_cancelled_at_each_await(query):
    @asynccontextmanager
    async def world():
        async with open_dns({"_dnsaddr.example.org": ["dnsaddr=/memory/1"]}) as lookup:
            before = trio.lowlevel.current_statistics().tasks_living
            yield partial(lookup.ask, query)
            assert trio.lowlevel.current_statistics().tasks_living == before

    assert await cancel_at_each_await(world) >= 1
