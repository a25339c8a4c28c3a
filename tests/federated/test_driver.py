from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from federated import codec
from federated.driver import STORAGE_RETRY, open_task, topic_of
from federated.errors import DataError, PluginError, StorageError
from federated.journal import Journal
from federated.manifest import PluginRef, TaskManifest
from federated.messages import (
    LIFETIME,
    Block,
    Certificate,
    Commit,
    Hello,
    Message,
    Model,
    Reveal,
    commitment,
    inputs_hash,
)
from federated.parameters import Parameters
from federated.registry import Registry
from federated.state import TaskState
from federated.wire import decode, encode
from federated.workbench import digest
from p2p.blobs import PROTOCOL as BLOBS
from p2p.blobs import blob_root
from p2p.errors import InvalidInput
from p2p.stream import Stream
from tests.federated import tiny
from tests.federated.lab import Lab, Member, ModelledCompute, peer_number, tiny_manifest

LIMIT = 600.0  # virtual seconds for a whole test


@asynccontextmanager
async def open_lab(lab: Lab, *numbers: int) -> AsyncIterator[trio.Nursery]:
    """The lab with these members at work; all end with the body."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for number in numbers:
                await nursery.start(lab.run, number)
            yield nursery
            nursery.cancel_scope.cancel()


def assert_agreed(lab: Lab, rounds: int) -> None:
    """Every round was reported, and with one digest."""
    assert {number: len(digests) for number, digests in lab.digests().items()} == dict.fromkeys(
        range(1, rounds + 1), 1
    )


def refused(lab: Lab, number: int, round_number: int) -> list[tuple[str, str]]:
    event = lab.rounds(number)[round_number]
    return [(item["peer"], item["rule"]) for item in event["refused"]]


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
    assert all(event.keys() == {"event", "task", "round", "phase", "seconds"} for event in reported)
    first, second = lab.rounds(1).values()
    assert first["task"] == lab.manifest.task_id.hex()
    assert first["participants"] == list(lab.manifest.members)
    assert list(first["phases"]) == phases
    assert first["seconds"] == pytest.approx(sum(first["phases"].values()))
    assert (first["skipped"], first["catch_up"], first["refused"]) == (False, False, [])
    assert first["accuracy"] == pytest.approx(1 / (1 + first["loss"]))
    assert 0 < first["bytes_sent"] < second["bytes_sent"]
    assert set(first) == {
        *("event", "task", "round", "digest", "skipped", "participants", "refused", "seconds", "phases"),
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
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        for _ in range(3):
            await trio.sleep(rng.uniform(0.0, 1.5))
            victim = rng.randint(1, 4)
            await lab.members[victim].crash()
            await trio.sleep(rng.uniform(0.0, 1.0))
            await nursery.start(lab.run, victim)
        await lab.until_finished(1, 2, 3, 4)
    assert_agreed(lab, 4)


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


# Strangers and liars


async def test_garbage_on_the_topic_ends_at_the_first_peer(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(5, rounds=4))
    task, topic = lab.manifest.task_id, topic_of(lab.manifest)
    rng = random.Random(1)
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        loud = [
            await nursery.start(_start_idle, lab, 5),  # a member
            await nursery.start(_start_idle, lab, 9),  # a stranger
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
        counters = lab.members[1].pubsub.counters
        assert counters.rejected >= 2 * 20 * 4  # the expired one is ignored
        assert counters.ignored >= 20
    assert_agreed(lab, 4)


async def _start_idle(lab: Lab, number: int, *, task_status: trio.TaskStatus[Member]) -> None:
    await lab.run(number, idle=True, task_status=task_status)


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
ODD_UPDATE = codec.encode({"count": np.zeros((), np.int64), "w": np.full(4, 40.0, np.float32)})


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
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3) as nursery:
        liar = await nursery.start(_start_idle, lab, 4)
        liar.blobs.store.put(data)
        nursery.start_soon(Liar(lab, liar, data).run)
        await lab.until_round(1, 1, 2, 3)
    name = str(peer_number(4))
    for number in (1, 2, 3):
        assert refused(lab, number, 1) == [(name, rule)]
        assert name not in lab.rounds(number)[1]["participants"]
        assert len(lab.rounds(number)[1]["participants"]) == 3
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
        liar = await nursery.start(_start_idle, lab, 4)
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
        await nursery.start(_start_with, lab, 4, astray)
        await lab.until_round(2, 1, 2, 3, 4)
    for number in (1, 2, 3, 4):
        assert refused(lab, number, 1) == [(str(peer_number(4)), rule)]
    assert_agreed(lab, 2)


async def _start_with(
    lab: Lab, number: int, plugins: Registry, *, task_status: trio.TaskStatus[Member]
) -> None:
    await lab.run(number, plugins=plugins, task_status=task_status)


async def test_a_member_that_breaks_its_promise_is_named_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3) as nursery:
        member = await nursery.start(_start_idle, lab, 4)
        nursery.start_soon(Liar(lab, member, TRUE_UPDATE, nonces=itertools.count()).run)
        await lab.until_round(1, 1, 2, 3)
    assert f"round 1: {peer_number(4)} broke the rule commitment" in caplog.messages
    assert_agreed(lab, 1)


async def test_a_member_that_computes_otherwise_takes_the_model_of_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(tiny_manifest(4, rounds=3))
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(_start_with, lab, 4, tiny.registry(**{"weighted-mean": "OtherMean"}))
        await lab.until_round(3, 1, 2, 3, 4)
    assert_agreed(lab, 3)
    assert [lab.rounds(4)[number]["catch_up"] for number in (1, 2, 3)] == [True] * 3
    certified = lab.rounds(1)[1]["digest"]
    assert any(message.startswith("round 1: ") and certified in message for message in caplog.messages)


# Plugins that fail


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ("Raises", "round 1 has no update of ours: trainer 'pull' failed: RuntimeError: out of luck"),
        ("Reshapes", "round 1 has no update of ours: trainer 'pull': tensor count int64[] is missing"),
        ("Waits", None),
    ],
)
async def test_a_trainer_that_fails_costs_the_update_and_not_the_peer(
    trainer: str, line: str | None, autojump_clock: MockClock
) -> None:
    lab = Lab(tiny_manifest(4, rounds=2))
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(_start_with, lab, 4, tiny.registry(pull=trainer))
        await lab.until_finished(1, 2, 3, 4)
    assert_agreed(lab, 2)
    reasons = [event["reason"] for event in lab.task_events(4) if "reason" in event]
    assert [reason for reason in reasons if reason.startswith("round 1")] == ([] if line is None else [line])
    assert lab.rounds(4)[1]["participants"] == [str(peer) for peer in sorted(map(peer_number, (1, 2, 3)))]


async def test_a_model_that_cannot_be_measured_is_reported_without_figures(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(1, rounds=1, trainer=PluginRef(name="raises")))
    async with open_lab(lab, 1):
        await lab.until_finished(1)
    assert lab.rounds(1)[1]["accuracy"] is None
    assert lab.rounds(1)[1]["skipped"]
    reasons = [event["reason"] for event in lab.task_events(1) if "reason" in event]
    assert "the model is not measured: trainer 'raises' failed: RuntimeError: nothing to measure" in reasons


async def test_updates_that_make_no_model_skip_the_round(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(3, rounds=2, aggregator=PluginRef(name="failingmean")))
    async with open_lab(lab, 1, 2, 3):
        await lab.until_round(2, 1, 2, 3)
    assert all(lab.rounds(number)[2]["skipped"] for number in (1, 2, 3))
    initial = tiny.digest_of(tiny.Pull().init(3))
    assert lab.digests() == {1: [initial], 2: [initial]}


async def test_a_task_that_cannot_run_here_says_why(autojump_clock: MockClock) -> None:
    cases: list[tuple[TaskManifest, type[Exception], str]] = [
        (tiny_manifest(3, members=[str(peer_number(7))]), InvalidInput, "is not a member"),
        (tiny_manifest(3, preprocessor=PluginRef(name="nopoints")), DataError, "points are missing"),
        (tiny_manifest(3, trainer=PluginRef(name="nobody")), PluginError, "no trainer 'nobody'"),
        (tiny_manifest(3, max_update_bytes=10), PluginError, "raise max_update_bytes"),
    ]
    lab = Lab(tiny_manifest(3))
    async with open_lab(lab) as nursery:
        member = await nursery.start(_start_idle, lab, 1)
        for manifest, error, line in cases:
            with pytest.raises(error, match=line):
                async with open_task(
                    member.host,
                    member.pubsub,
                    member.blobs,
                    manifest,
                    tiny.registry(),
                    None,
                    lambda event: None,
                    compute=ModelledCompute,
                ):
                    pass


# Disks that fail


async def test_a_member_whose_disk_fails_is_quiet_until_it_works_again(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tiny_manifest(4, rounds=6), tmp_path)
    write, broken = TaskState.write, [False]

    def failing(state: TaskState, entries: object) -> None:
        if broken[0] and state._folder is not None and "/4/" in str(state._folder):
            raise StorageError("journal: No space left on device")
        write(state, entries)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(TaskState, "write", failing)
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(1, 1, 2, 3, 4)
        broken[0] = True
        await lab.until(lambda: lab.task_events(4)[-1]["state"] == "waiting")
        assert lab.task_events(4)[-1]["reason"] == "journal: No space left on device"
        sent = lab.members[4].blobs.bytes_sent
        await lab.until_round(4, 1, 2, 3)
        assert lab.members[4].blobs.bytes_sent == sent
        assert str(peer_number(4)) not in lab.rounds(1)[4]["participants"]
        broken[0] = False
        back = trio.current_time()
        await lab.until(lambda: lab.task_events(4)[-1]["state"] == "joined")
        assert trio.current_time() - back <= STORAGE_RETRY + 1
        await lab.until_round(6, 1, 2, 3, 4)
    assert_agreed(lab, 6)


async def test_a_damaged_journal_keeps_a_member_from_voting_and_nobody_else(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(4, rounds=2), tmp_path)
    folder = tmp_path / "4" / "tasks" / lab.manifest.task_id.hex()
    folder.mkdir(parents=True)
    journal = Journal(folder / "journal")
    journal.append([b"nonsense", b"more"])
    journal.close()
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 1, 2, 3)
    [event] = lab.task_events(4)
    assert event["state"] == "waiting"
    assert "remove the folder" in event["reason"]


async def test_a_checkpoint_of_another_kind_of_model_is_not_guessed_at(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(1, rounds=1), tmp_path)
    folder = tmp_path / "1" / "tasks" / lab.manifest.task_id.hex()
    state = TaskState(folder, lab.manifest.task_id, 1000)
    state.restore()
    model = Model(digest=digest(OTHER_MODEL), root=blob_root(OTHER_MODEL), size=len(OTHER_MODEL))
    block = Block(
        task=lab.manifest.task_id,
        round=1,
        base=bytes(32),
        inputs=inputs_hash((bytes(32),)),
        participants=1,
        examples=1,
        model=model,
    )
    state.checkpoint(Certificate(view=1, block=block, votes=((0, bytes(64)),)), OTHER_MODEL)
    state.close()
    async with open_lab(lab, 1):
        await lab.until(lambda: bool(lab.task_events(1)))
    [event] = lab.task_events(1)
    assert event["state"] == "waiting"
    assert "the checkpoint holds no model of this task: schema" in event["reason"]


async def test_a_blob_that_cannot_be_removed_stops_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(tiny_manifest(1, rounds=3))

    def fails(root: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(lab.store(1), "discard", fails)
    async with open_lab(lab, 1):
        await lab.until_finished(1)
    assert_agreed(lab, 3)
    assert any("cannot be removed" in message for message in caplog.messages)


async def test_a_full_blob_store_disk_is_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tiny_manifest(3, rounds=1))
    async with open_lab(lab) as nursery:
        attempts = []

        def full(data: bytes) -> bytes:
            attempts.append(len(data))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(lab.store(1), "put", full)
        await nursery.start(lab.run, 1)
        await trio.sleep(4 * STORAGE_RETRY)
        assert len(attempts) in (3, 4)
        monkeypatch.undo()
        for number in (2, 3):
            await nursery.start(lab.run, number)
        await lab.until_round(1, 1, 2, 3)
    states = [event["state"] for event in lab.task_events(1)]
    assert states == ["waiting", "joined", "joined", "finished"]


async def test_two_tasks_on_the_same_peers_do_not_disturb_each_other(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(3, rounds=3), tmp_path)
    other = tiny_manifest(3, rounds=3, name="other", trainer=PluginRef(name="raises"))
    seen: list[tuple[int, str]] = []

    async def run_other(number: int) -> None:
        member = lab.members[number]
        async with open_task(
            member.host,
            member.pubsub,
            member.blobs,
            other,
            tiny.registry(),
            lab.folder(number),
            lambda event: seen.append((number, event["event"])),
            compute=ModelledCompute,
        ) as task:
            await task.wait_finished()

    async with open_lab(lab, 1, 2, 3):
        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                nursery.start_soon(run_other, number)
        await lab.until_round(3, 1, 2, 3)
    assert_agreed(lab, 3)
    assert all(seen.count((number, "round")) == 3 for number in (1, 2, 3))
