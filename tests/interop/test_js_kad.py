"""A js-libp2p node is in our DHT: values and providers go both ways, and what is poisoned goes neither."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2p.address import parse_address, split_peer
from p2p.host import open_host
from p2p.kad import content_key, open_kad, provider_key, public_key_key
from tests.processes import run_process

LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")
VALUE = "what everybody should know"
KEY = content_key(VALUE.encode())

CONTENT = provider_key(bytes(range(32)))

pytestmark = pytest.mark.timeout(700)  # the first test may install the packages


@asynccontextmanager
async def open_member(js_address):
    """(host, its Kad), in one DHT with the js node."""
    address, js_id = split_peer(parse_address(js_address))
    async with open_host() as host, open_kad(host) as kad:
        await host.listen(LOOPBACK)
        await host.connect(js_id, [address])
        await host.wait_for_peer(js_id)
        await trio.testing.wait_all_tasks_blocked()
        assert js_id in kad.table
        yield host, kad


@asynccontextmanager
async def open_pair(js_node):
    """(the js node, its address, a host, its Kad), which have one another in their tables."""
    async with run_process([*js_node, "--kad"]) as js:
        address = (await js.wait_for("ready"))["addrs"][0]
        async with open_member(address) as (host, kad):
            assert (await js.wait_for("dht-peer"))["peer"] == str(host.peer_id)
            yield js, address, host, kad


async def test_a_js_node_keeps_our_value_and_gives_it_to_others(js_node):
    async with open_pair(js_node) as (js, address, host, kad):
        with trio.fail_after(30):
            assert await kad.put_value(KEY, VALUE.encode()) == 1
            assert (await js.command("get_value", key=KEY.decode()))["text"] == VALUE
            await host.disconnect(split_peer(parse_address(address))[1])
            async with open_member(address) as (_, other):
                assert await other.get_value(KEY, quorum=1) == VALUE.encode()


async def test_we_keep_the_value_of_a_js_node_and_date_it(js_node):
    async with open_pair(js_node) as (js, _, _, kad):
        with trio.fail_after(30):
            assert (await js.command("put_value", key=KEY.decode(), text=VALUE))["taken"] == 1
            record = kad.store.get(KEY, trio.current_time())
            assert record is not None
            assert (record.value, record.received[:2], record.received[-1:]) == (VALUE.encode(), b"20", b"Z")
            assert (await js.command("get_value", key=KEY.decode()))["text"] == VALUE


async def test_a_value_that_its_key_does_not_allow_is_kept_by_nobody(js_node):
    async with open_pair(js_node) as (js, _, _, kad):
        with trio.fail_after(30):
            assert (await js.command("put_value", key=KEY.decode(), text="poison"))["taken"] == 0
            assert len(kad.store) == 0
            assert (await js.command("ping", peer=str(kad._host.peer_id)))["ms"] >= 0


async def test_a_js_node_knows_the_namespace_of_public_keys(js_node):
    async with open_pair(js_node) as (_, _, host, kad):
        key = host.peer_id.public_key()
        assert key is not None
        with trio.fail_after(30):
            assert await kad.put_value(public_key_key(host.peer_id), key.encode()) == 1


async def found(kad):
    """The providers of the content."""
    async with kad.find_providers(CONTENT) as providers:
        return [peer async for peer in providers]


async def test_a_js_node_finds_what_we_provide_and_tells_others(js_node):
    async with open_pair(js_node) as (js, address, host, kad):
        with trio.fail_after(30):
            assert await kad.provide(CONTENT) == 1
            [provider] = (await js.command("find_providers", key=CONTENT.hex()))["providers"]
            assert provider["peer"] == str(host.peer_id)
            assert provider["addrs"] == [str(address) for address in host.addresses()]
            async with open_member(address) as (other_host, other):
                assert await found(other) == [host.peer_id]
                assert await other_host.ping(host.peer_id) >= 0


async def test_we_find_what_a_js_node_provides_and_tell_others(js_node):
    async with open_pair(js_node) as (js, address, host, kad):
        js_id = split_peer(parse_address(address))[1]
        with trio.fail_after(30):
            assert (await js.command("provide", key=CONTENT.hex()))["told"] == 1
            assert kad.providers.providers(CONTENT, trio.current_time()) == [js_id]
            assert await found(kad) == [js_id]
            async with open_host() as reader, open_kad(reader, server=False) as other:
                await reader.connect(host.peer_id, host.addresses())
                await reader.wait_for_peer(host.peer_id)
                await trio.testing.wait_all_tasks_blocked()
                assert await found(other) == [js_id]
                assert await reader.ping(js_id) >= 0


async def test_content_that_nobody_provides_is_found_at_neither(js_node):
    async with open_pair(js_node) as (js, _, _, kad):
        with trio.fail_after(30):
            assert await found(kad) == []
            assert (await js.command("find_providers", key=CONTENT.hex()))["providers"] == []
