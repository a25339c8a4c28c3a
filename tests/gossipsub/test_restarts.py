"""Who restarts often is an honest peer all the same: neither shut out while it does, nor afterwards."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2p.gossipsub import open_gossipsub
from p2p.transport.memory import MemoryNetwork
from sim.run import simulate
from sim.scenario.model import Scenario
from tests.support import connect, open_memory_host

RESTARTING = 3  # node


@pytest.mark.parametrize("silently", [False, True])
def test_a_peer_killed_every_3_seconds_for_a_minute_is_heard_by_all_soon_after(silently: bool) -> None:
    crash = {"kind": "crash", "seconds": 0.5, "who": {"nodes": [RESTARTING]}, "silently": silently}
    scenario = {
        "name": "restarts",
        "peers": 6,
        "topology": {"degree": 5},
        "gossip": [{"rate": 6.0, "seconds": 95.0}],
        "faults": [crash | {"at": 5.0 + 3.0 * number} for number in range(20)],
    }
    outcome = simulate(Scenario.model_validate(scenario), seed=1)
    assert outcome.holds, [check for check in outcome.checks if not check.holds]
    assert min(outcome.recorder.scores.honest.low) == 0.0
    late = [
        message
        for message in outcome.recorder.ledger
        if message.publisher == RESTARTING and message.published > 92.5
    ]
    assert late
    assert all(message.has(node) for message in late for node in range(6))


async def test_who_stops_and_starts_again_and_again_is_heard_and_hears(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as host, open_gossipsub(host) as pubsub:
        with pubsub.subscribe("t") as subscription:
            for _ in range(10):
                async with open_memory_host(network, 2) as again, open_gossipsub(again) as restarted:
                    await connect(host, again)
                    with restarted.subscribe("t") as heard:
                        await restarted.wait_for_peers("t", 1)
                        await pubsub.wait_for_peers("t", 1)
                        restarted.publish("t", b"of a peer that restarts")
                        assert (await anext(subscription)).sender == again.peer_id
                        pubsub.publish("t", b"to a peer that restarts")
                        assert (await anext(heard)).sender == host.peer_id
                        assert pubsub.score(again.peer_id) >= 0.0
                await trio.sleep(0.1)
