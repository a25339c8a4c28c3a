from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from federated.driver import topic_of
from federated.parameters import Parameters
from federated.rounds.messages import (
    Body,
    Choice,
    Reveal,
    Vote,
)
from federated.rounds.wire import decode
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    Member,
    assert_agreed,
    open_lab,
    peer_number,
    start_idle,
    tiny_manifest,
)

# Rounds


async def test_all_members_come_to_the_same_model_in_every_round(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(6))
    everybody = range(1, 7)
    async with open_lab(lab, *everybody):
        for number in everybody:
            task = lab.members[number].task
            assert task is not None
            await task.wait_finished()
    assert_agreed(lab, 6)
    for number in everybody:
        assert list(lab.rounds(number)) == [1, 2, 3, 4, 5, 6]
        states = [event["state"] for event in lab.task_events(number)]
        assert states == ["joined", "finished"]


async def test_a_round_is_reported_with_all_that_happened(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=2))
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 1)
    events = lab.reports[1]
    phases = ["train", "commit", "reveal", "fetch", "validate", "aggregate", "vote"]
    reported = [event for event in events if event["event"] == "phase" and event["round"] == 1]
    assert [event["phase"] for event in reported] == phases
    names = {"event", "task", "round", "phase", "seconds", "answers", "needed"}
    assert all(event.keys() == names for event in reported)
    first, second = lab.rounds(1).values()
    assert first["task"] == lab.manifest.task_id.hex()
    assert first["participants"] == list(lab.manifest.members)
    assert list(first["phases"]) == phases
    assert first["seconds"] == pytest.approx(sum(first["phases"].values()))
    assert (first["skipped"], first["catch_up"], first["refused"]) == (False, False, [])
    assert first["accuracy"] == pytest.approx(1 / (1 + first["loss"]))
    assert 0 < first["bytes_sent"] < second["bytes_sent"]
    assert set(first) == {
        *(
            "event",
            "task",
            "round",
            "digest",
            "skipped",
            "participants",
            "refused",
            "late",
            "seconds",
            "phases",
        ),
        *("accuracy", "loss", "bytes_sent", "catch_up"),
    }


async def test_the_model_is_the_weighted_mean_of_what_the_members_trained(autojump_clock: MockClock) -> None:
    manifest = tiny_manifest(3, rounds=1, seed=3)
    lab = Lab(manifest)
    async with open_lab(lab, 1, 2, 3):
        await lab.until_round(1, 1, 2, 3)
    deltas, weights = [(point - 3) / 2 for point in range(3)], [1, 2, 3]
    mean = 3 + sum(delta * weight for delta, weight in zip(deltas, weights, strict=True)) / 6
    expected: Parameters = {"count": np.ones((), np.int64), "w": np.full(4, mean, np.float32)}
    assert lab.digests() == {1: [tiny.digest_of(expected)]}


async def test_a_member_alone_trains_alone(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(1, rounds=3))
    async with open_lab(lab, 1):
        await lab.until_round(3, 1)
    assert_agreed(lab, 3)


async def test_blobs_of_old_rounds_are_dropped(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=6))
    held: list[int] = []
    async with open_lab(lab, 1, 2, 3, 4):
        for number in range(1, 7):
            await lab.until_round(number, 1)
            held.append(len(lab.members[1].blobs.store))
    assert max(held) <= 2 * (4 + 1) + 1  # of two rounds: an update of each member, and the model


async def test_a_member_that_comes_late_catches_up_and_takes_part(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(5, rounds=9))
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await lab.until_round(3, 1)
        await nursery.start(lab.run, 5)
        await lab.until_round(9, 1, 2, 3, 4, 5)
    assert_agreed(lab, 9)
    mine = lab.rounds(5)
    first = mine[min(mine)]
    assert first["catch_up"]
    assert first["phases"] == {}
    assert str(peer_number(5)) in lab.rounds(1)[9]["participants"]


async def test_a_task_that_lags_behind_the_hosts_events_learns_who_is_gone(
    autojump_clock: MockClock,
) -> None:
    lab = Lab(tiny_manifest(5, rounds=4))
    async with open_lab(lab, 1, 2, 3, 4, 5):
        await lab.until_round(1, 1, 2, 3, 4)
        host = lab.members[1].host
        subscribers = list(host._subscribers)  # cut off, as the host does with those that do not keep up
        host._subscribers.clear()
        await lab.members[5].crash()
        while host.is_connected(peer_number(5)):
            await trio.testing.wait_all_tasks_blocked()
        for subscriber in subscribers:
            subscriber.close()
        await lab.until_round(4, 1, 2, 3, 4)
    assert str(peer_number(5)) not in lab.rounds(1)[4]["participants"]
    assert lab.rounds(1)[4]["seconds"] < lab.manifest.policy.phase_deadline_s  # it is not waited for
    assert_agreed(lab, 4)


# Crashes


async def test_a_crashed_member_comes_back_and_trains_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(5, rounds=9), tmp_path)
    victim = str(peer_number(5))
    async with open_lab(lab, 1, 2, 3, 4, 5) as nursery:
        await lab.until_round(2, 5)
        await lab.members[5].crash()
        await lab.until_round(5, 1)
        assert victim not in lab.rounds(1)[5]["participants"]
        await nursery.start(lab.run, 5)
        await lab.until_round(9, 1, 2, 3, 4, 5)
    assert_agreed(lab, 9)
    assert victim in lab.rounds(1)[9]["participants"]
    assert lab.rounds(5)[9]["catch_up"] is False


@pytest.mark.parametrize("seed", range(8))
async def test_a_crash_at_any_moment_contradicts_nothing(
    seed: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Members crash and come back, now this one, now that one, wherever they are in their rounds."""
    rng = random.Random(seed)
    lab = Lab(tiny_manifest(4, rounds=4), tmp_path)
    heard: list[tuple[PeerId, Body]] = []
    async with open_lab(lab) as nursery:
        listener = await nursery.start(start_idle, lab, 9)
        nursery.start_soon(_listen, lab, listener, heard)
        for number in (1, 2, 3, 4):
            await nursery.start(lab.run, number)
        for _ in range(3):
            await trio.sleep(rng.uniform(0.0, 1.5))
            victim = rng.randint(1, 4)
            await lab.members[victim].crash()
            await trio.sleep(rng.uniform(0.0, 1.0))
            await nursery.start(lab.run, victim)
        await lab.until_finished(1, 2, 3, 4)
    assert_agreed(lab, 4)
    assert_no_contradiction(heard)


async def _listen(lab: Lab, member: Member, heard: list[tuple[PeerId, Body]]) -> None:
    with member.pubsub.subscribe(topic_of(lab.manifest)) as subscription:
        async for message in subscription:
            heard.append((message.sender, decode(message.data).body))


def assert_no_contradiction(heard: Sequence[tuple[PeerId, Body]]) -> None:
    """Nobody revealed two updates in a round, voted twice, or both to nullify and to finalize a view."""
    said: dict[object, object] = {}
    for sender, body in heard:
        match body:
            case Reveal():
                assert said.setdefault((sender, body.round), body) == body
            case Vote(round=number, view=view, choice=choice):
                assert said.setdefault((sender, number, view, choice), body) == body
                excluded = {Choice.NULLIFY: Choice.FINALIZE, Choice.FINALIZE: Choice.NULLIFY}.get(choice)
                assert (sender, number, view, excluded) not in said
    assert any(isinstance(body, Vote) for _, body in heard)


async def test_all_members_crash_and_go_on_where_they_were(autojump_clock: MockClock, tmp_path: Path) -> None:
    lab = Lab(tiny_manifest(4, rounds=5), tmp_path)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 1, 2, 3, 4)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(5, 1, 2, 3, 4)
    assert_agreed(lab, 5)
    rounds = [event["round"] for event in lab.reports[1] if event["event"] == "round"]
    assert rounds == [1, 2, 3, 4, 5]  # none was done twice


async def test_a_finished_task_is_finished_after_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    lab = Lab(tiny_manifest(4, rounds=2), tmp_path)
    async with open_lab(lab, 1, 2, 3):
        await lab.until_round(2, 1, 2, 3)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 4)  # a member that was away gets the model from those that are through
    assert lab.rounds(4)[2]["catch_up"]
    assert [event["state"] for event in lab.task_events(1)] == ["joined", "finished"] * 2
    assert_agreed(lab, 2)
