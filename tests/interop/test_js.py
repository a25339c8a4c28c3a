"""A js-libp2p node joins a running peer, over TCP, noise and yamux."""

from __future__ import annotations

import base64

import pytest
import trio

from p2p.address import parse_address, split_peer
from p2p.gossipsub import open_gossipsub
from p2p.host import open_host
from tests.processes import run_peer, run_process

TOPIC = "interop"
LOOPBACK = parse_address("/ip4/127.0.0.1/tcp/0")

pytestmark = pytest.mark.timeout(700)  # the first test may install the packages


def text_of(event):
    return base64.b64decode(event["data"]).decode()


async def test_a_js_node_joins_a_running_peer(js_node):
    async with run_peer("--subscribe", TOPIC) as (peer, listening), run_process(js_node) as js:
        ready = await js.wait_for("ready")
        address = listening["addrs"][0]
        await js.command("subscribe", topic=TOPIC)
        assert (await js.command("dial", addr=address))["peer"] == listening["peer_id"]

        identified = await js.wait_for("identify")
        assert identified["peer"] == listening["peer_id"]
        assert identified["agent"].startswith("atcp/")
        assert identified["listen"] == [address.rpartition("/p2p/")[0]]
        assert "/meshsub/1.1.0" in identified["protocols"]
        assert identified["observed"].startswith("/ip4/127.0.0.1/tcp/")
        assert (await peer.wait_for("connected"))["peer"] == ready["peer_id"]

        assert (await js.command("ping", addr=address))["ms"] >= 0

        await js.wait_for("subscriptions", lambda event: TOPIC in event["topics"])
        await js.command("publish", topic=TOPIC, text="from js")
        message = await peer.wait_for("message")
        assert (message["from"], text_of(message)) == (ready["peer_id"], "from js")

        await peer.send("from python")
        message = await js.wait_for("message")
        assert (message["from"], text_of(message)) == (listening["peer_id"], "from python")

        await js.process.stdin.aclose()
        assert (await peer.wait_for("disconnected"))["peer"] == ready["peer_id"]


async def test_we_dial_identify_and_ping_a_js_node(js_node):
    async with run_process(js_node) as js:
        ready = await js.wait_for("ready")
        address, js_id = split_peer(parse_address(ready["addrs"][0]))
        async with open_host() as host, open_gossipsub(host) as pubsub:
            await host.listen(LOOPBACK)
            await js.command("subscribe", topic=TOPIC)
            await host.connect(js_id, [address])
            seen = await host.wait_for_peer(js_id)
            assert "js-libp2p" in seen.agent
            assert "/ipfs/ping/1.0.0" in seen.protocols
            assert host.peerstore.addresses(js_id) == [address]
            identified = await js.wait_for("identify")
            assert identified["peer"] == str(host.peer_id)

            for _ in range(3):
                assert 0 < await host.ping(js_id) < 5

            with pubsub.subscribe(TOPIC) as subscription, trio.fail_after(30):
                await pubsub.wait_for_peers(TOPIC, 1)
                for number in range(20):
                    pubsub.publish(TOPIC, f"message {number}".encode() + bytes(2000))
                for number in range(20):
                    message = await js.wait_for("message")
                    assert text_of(message).startswith(f"message {number}")
                await js.wait_for("subscriptions", lambda event: TOPIC in event["topics"])
                await js.command("publish", topic=TOPIC, text="answer")
                answer = await anext(aiter(subscription))
                assert (answer.sender, answer.data) == (js_id, b"answer")


async def test_messages_of_js_pass_through_a_peer_in_the_middle(js_node):
    async with run_peer("--subscribe", TOPIC) as (peer, listening):
        async with run_process(js_node) as one, run_process(js_node) as two:
            ids = []
            for js in (one, two):
                ids.append((await js.wait_for("ready"))["peer_id"])
                await js.command("subscribe", topic=TOPIC)
                await js.command("dial", addr=listening["addrs"][0])
                await js.wait_for("subscriptions", lambda event: TOPIC in event["topics"])
                # a message follows the subscription on the same stream: once it is here, so is that
                await js.command("publish", topic=TOPIC, text="hello")
                await peer.wait_for("message", lambda event: event["from"] == ids[-1])
            await one.command("publish", topic=TOPIC, text="through the middle")
            message = await two.wait_for("message", lambda event: text_of(event) != "hello")
            assert (message["from"], text_of(message)) == (ids[0], "through the middle")
            await two.command("publish", topic=TOPIC, text="and back")
            message = await one.wait_for("message", lambda event: text_of(event) != "hello")
            assert (message["from"], text_of(message)) == (ids[1], "and back")
