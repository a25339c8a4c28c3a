from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from federated import codec
from federated.driver import topic_of
from federated.rounds.messages import (
    LIFETIME,
    Commit,
    Hello,
    Message,
    Reveal,
    commitment,
)
from federated.rounds.wire import decode, encode
from p2p.blobs import PROTOCOL as BLOBS
from p2p.blobs import blob_root
from p2p.stream import Stream
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    Member,
    assert_agreed,
    open_lab,
    peer_number,
    refused,
    start_idle,
    start_with,
    tiny_manifest,
)

# Strangers and liars


async def test_garbage_on_the_topic_ends_at_the_first_peer(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(5, rounds=4))
    task, topic = lab.manifest.task_id, topic_of(lab.manifest)
    rng = random.Random(1)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        loud = [
            await nursery.start(start_idle, lab, 5),  # a member
            await nursery.start(start_idle, lab, 9),  # a stranger
        ]
        hello = Message(task=task, seq=1, expiry=1, body=Hello(round=1, base=bytes(32)))
        foreign = Message(task=bytes(32), seq=1, expiry=1, body=Hello(round=1, base=bytes(32)))
        for member in loud:
            await member.pubsub.wait_for_peers(topic, 4)
        for _ in range(20):
            for member in loud:
                for data in (rng.randbytes(50), bytes(5000), b"", encode(hello), encode(foreign)):
                    member.pubsub.publish(topic, data)
            await trio.sleep(0.1)
        await lab.until_round(4, 1, 2, 3, 4)
        pubsub = lab.members[1].pubsub
        assert all(pubsub.score(member.host.peer_id) < -10.0 for member in loud)
        assert 2 * 9 <= pubsub.counters.rejected <= 2 * 11  # then they were not heard any more
        assert 1 <= pubsub.counters.ignored <= 3  # the expired ones of the member
    assert_agreed(lab, 4)


class Liar:
    """A member that takes part in the talk of every round, but whose update is whatever it is."""

    def __init__(self, lab: Lab, member: Member, data: bytes, nonces: Iterator[int] | None = None) -> None:
        self._lab = lab
        self._member = member
        self._root, self._size = blob_root(data), len(data)
        self._nonces = nonces or itertools.repeat(0)
        self._seq = 0

    async def run(self) -> None:
        """Commits when others commit, and reveals when others reveal."""
        base: dict[int, bytes] = {}
        topic = topic_of(self._lab.manifest)
        with self._member.pubsub.subscribe(topic) as subscription:
            async for message in subscription:
                body = decode(message.data).body
                match body:
                    case Hello(round=number):
                        base[number] = body.base
                        self._publish(body)
                    case Commit(round=number) if number in base:
                        reveal = self._reveal(number)
                        task = self._lab.manifest.task_id
                        value = commitment(self._member.host.peer_id, task, base[number], reveal)
                        self._publish(Commit(round=number, commitment=value))
                    case Reveal(round=number):
                        self._publish(self._reveal(number))

    def _reveal(self, number: int) -> Reveal:
        nonce = next(self._nonces).to_bytes(32, "big")
        return Reveal(round=number, root=self._root, size=self._size, nonce=nonce, examples=1)

    def _publish(self, body: Hello | Commit | Reveal) -> None:
        self._seq += 1
        expiry = int(self._lab.wall_time() + LIFETIME)
        message = Message(task=self._lab.manifest.task_id, seq=self._seq, expiry=expiry, body=body)
        self._member.pubsub.publish(topic_of(self._lab.manifest), encode(message))


TRUE_UPDATE = codec.encode({"count": np.zeros((), np.int64), "w": np.zeros(4, np.float32)})
OTHER_MODEL = codec.encode({"w": np.zeros(4, np.float32)})
NAN_UPDATE = codec.encode({"count": np.zeros((), np.int64), "w": np.full(4, np.nan, np.float32)})
FAR_UPDATE = codec.encode({"count": np.zeros((), np.int64), "w": np.full(4, 1e6, np.float32)})
ODD_UPDATE = codec.encode({"count": np.zeros((), np.int64), "w": np.full(4, 200.0, np.float32)})


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\x80\x04K\x01.", "header"),
        (TRUE_UPDATE[:-1], "size"),
        (OTHER_MODEL, "schema"),
        (NAN_UPDATE, "finite"),
        (FAR_UPDATE, "norm"),
        (ODD_UPDATE, "norm"),
    ],
)
async def test_an_update_that_breaks_a_rule_is_refused_by_its_name(
    data: bytes, rule: str, autojump_clock: MockClock
) -> None:
    lab = Lab(tiny_manifest(6, rounds=1))
    honest = (1, 2, 3, 4, 5)
    async with open_lab(lab, *honest) as nursery:
        liar = await nursery.start(start_idle, lab, 6)
        liar.blobs.store.put(data)
        nursery.start_soon(Liar(lab, liar, data).run)
        await lab.until_round(1, *honest)
    name = str(peer_number(6))
    for number in honest:
        assert refused(lab, number, 1) == [(name, rule)]
        assert name not in lab.rounds(number)[1]["participants"]
        assert len(lab.rounds(number)[1]["participants"]) == 5
    assert_agreed(lab, 1)


async def serves_other_bytes(stream: Stream) -> None:
    await stream.send_all(b"\x02\x91\x05" * 100)


async def is_silent(stream: Stream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [None, serves_other_bytes, is_silent])
async def test_an_update_that_nobody_gets_is_missing_and_the_round_goes_on(
    handler: Callable[[Stream], Awaitable[None]] | None, autojump_clock: MockClock
) -> None:
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3) as nursery:
        liar = await nursery.start(start_idle, lab, 4)
        if handler is not None:
            liar.host.unhandle(BLOBS)
            liar.host.handle(BLOBS, handler)
        nursery.start_soon(Liar(lab, liar, TRUE_UPDATE).run)
        await lab.until_round(1, 1, 2, 3)
    for number in (1, 2, 3):
        assert refused(lab, number, 1) == [(str(peer_number(4)), "missing")]
        assert len(lab.rounds(number)[1]["participants"]) == 3
    assert_agreed(lab, 1)


@pytest.mark.parametrize(("trainer", "rule"), [("Nan", "finite"), ("Huge", "norm")])
async def test_a_member_whose_training_goes_astray_is_refused_by_all(
    trainer: str, rule: str, autojump_clock: MockClock
) -> None:
    lab = Lab(tiny_manifest(4, rounds=2))
    astray = tiny.registry(pull=trainer)
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(start_with, lab, 4, astray)
        await lab.until_round(2, 1, 2, 3, 4)
    for number in (1, 2, 3, 4):
        assert refused(lab, number, 1) == [(str(peer_number(4)), rule)]
    assert_agreed(lab, 2)


async def test_a_member_that_breaks_its_promise_is_named_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3) as nursery:
        member = await nursery.start(start_idle, lab, 4)
        nursery.start_soon(Liar(lab, member, TRUE_UPDATE, nonces=itertools.count()).run)
        await lab.until_round(1, 1, 2, 3)
    assert f"round 1: {peer_number(4)} broke the rule commitment" in caplog.messages
    assert_agreed(lab, 1)


async def test_a_member_that_computes_otherwise_takes_the_model_of_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(tiny_manifest(4, rounds=3))
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(start_with, lab, 4, tiny.registry(**{"weighted-mean": "OtherMean"}))
        await lab.until_round(3, 1, 2, 3, 4)
    assert_agreed(lab, 3)
    assert [lab.rounds(4)[number]["catch_up"] for number in (1, 2, 3)] == [True] * 3
    certified = lab.rounds(1)[1]["digest"]
    assert any(message.startswith("round 1: ") and certified in message for message in caplog.messages)
