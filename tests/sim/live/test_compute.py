"""Work in virtual time: real results, modelled durations. And signatures that are verified once."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest
import trio

from p2p.gossipsub.wire import Message
from p2p.peer_id import PeerId
from sim import verification
from sim.identity import key_of
from sim.live.compute import SECONDS, ModelledCompute
from sim.verification import VerificationCache
from tests.sim.live.support import World, simulated


def compute(world: World) -> ModelledCompute:
    return ModelledCompute(1, world.network, Random(1), train_seconds=2.0)


@simulated()
async def test_a_job_has_its_real_result_after_its_modelled_time(world: World) -> None:
    for kind, seconds in SECONDS.items():
        began = trio.current_time()
        assert await compute(world).run(lambda should_stop: (6 * 7, should_stop()), kind) == (42, False)
        assert trio.current_time() - began == pytest.approx(seconds)


@simulated()
async def test_training_takes_about_as_long_as_the_scenario_says_each_time_anew(world: World) -> None:
    node, took = compute(world), list[float]()
    for _ in range(40):
        began = trio.current_time()
        await node.run(lambda should_stop: None, "train")
        took.append(trio.current_time() - began)
    assert len(set(took)) == 40
    assert 1.5 < sorted(took)[20] < 2.5


@simulated()
async def test_a_slow_processor_takes_longer(world: World) -> None:
    world.network.begin_slow_processor([1], 10)
    began = trio.current_time()
    await compute(world).run(lambda should_stop: None, "aggregate")
    assert trio.current_time() - began == pytest.approx(10 * SECONDS["aggregate"])


@simulated()
async def test_jobs_of_a_node_run_one_after_the_other(world: World) -> None:
    node, ended = compute(world), list[float]()

    async def work() -> None:
        await node.run(lambda should_stop: None, "aggregate")
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work)
    assert ended == pytest.approx([SECONDS["aggregate"] * turn for turn in (1, 2, 3)])


@simulated()
async def test_a_cancelled_job_makes_place_for_the_next(world: World) -> None:
    node, ran = compute(world), list[int]()
    with trio.move_on_after(0.001):
        await node.run(lambda should_stop: ran.append(1), "aggregate")
    await node.run(lambda should_stop: ran.append(2), "aggregate")
    assert ran == [1, 2]


@simulated()
async def test_what_a_job_raises_is_raised(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        await compute(world).run(lambda should_stop: 1 / 0)


class Signed:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def test_the_same_bytes_are_verified_once_and_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verification, "MAX_KEPT", 2)
    verified: list[bytes] = []
    peer = PeerId.from_public_key(key_of(1, 1).public)

    def verify(message: Message) -> PeerId | None:
        verified.append(message.raw)
        return peer if message.raw.startswith(b"good") else None

    cache = VerificationCache(verify=verify)

    def ask(raw: bytes) -> PeerId | None:
        return cache(cast(Message, Signed(raw)))

    assert [ask(b"good"), ask(b"bad"), ask(b"good"), ask(b"bad")] == [peer, None, peer, None]
    assert verified == [b"good", b"bad"]
    ask(b"third")
    ask(b"good")
    assert verified == [b"good", b"bad", b"third", b"good"]
