from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from federated import codec
from federated.compute import ThreadCompute
from federated.driver import open_task
from federated.errors import DataError, PluginError, StorageError
from federated.journal import Journal
from federated.manifest import PluginRef, RoundPolicy, TaskManifest
from federated.rounds.messages import (
    Model,
)
from federated.state import TaskState
from federated.storage import STORAGE_RETRY
from federated.workbench import digest
from p2p.blobs import StoreFull, blob_root
from p2p.errors import InvalidInput
from p2p.files import FolderFiles
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    ModelledCompute,
    assert_agreed,
    certified,
    open_lab,
    peer_number,
    start_idle,
    start_with,
    tiny_manifest,
)

# Plugins that fail


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ("Raises", "round 1 has no update of ours: trainer 'pull' failed: RuntimeError: out of luck (tiny"),
        ("Reshapes", "round 1 has no update of ours: trainer 'pull': tensor count int64[] is missing"),
        ("Waits", None),
    ],
)
async def test_a_trainer_that_fails_costs_the_update_and_not_the_peer(
    trainer: str, line: str | None, autojump_clock: MockClock
) -> None:
    lab = Lab(tiny_manifest(4, rounds=2))
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(start_with, lab, 4, tiny.registry(pull=trainer))
        await lab.until_finished(1, 2, 3, 4)
    assert_agreed(lab, 2)
    reasons = [event["reason"] for event in lab.task_events(4) if "reason" in event]
    told = [reason for reason in reasons if reason.startswith("round 1")]
    assert len(told) == (line is not None)
    assert all(reason.startswith(line or "") for reason in told)
    assert lab.rounds(4)[1]["participants"] == [str(peer) for peer in sorted(map(peer_number, (1, 2, 3)))]


async def test_a_model_that_cannot_be_measured_is_reported_without_figures(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(1, rounds=1, trainer=PluginRef(name="raises")))
    async with open_lab(lab, 1):
        await lab.until_finished(1)
    assert lab.rounds(1)[1]["accuracy"] is None
    assert lab.rounds(1)[1]["skipped"]
    reasons = [event["reason"] for event in lab.task_events(1) if "reason" in event]
    told = (
        "the model is not measured: trainer 'raises' failed: RuntimeError: nothing to measure (tiny.py, line "
    )
    assert any(reason.startswith(told) for reason in reasons)


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
        member = await nursery.start(start_idle, lab, 1)
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


async def test_a_trainer_that_takes_too_long_is_told_to_stop() -> None:
    """In real threads and real time: deadlines are a fraction of a second."""
    policy = RoundPolicy(train_deadline_s=0.2, phase_deadline_s=0.3)
    lab = Lab(tiny_manifest(4, rounds=2, policy=policy), compute=ThreadCompute)
    before = tiny.Endless.stopped
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(start_with, lab, 4, tiny.registry(pull="Endless"))
        await lab.until_finished(1, 2, 3, 4)
    assert_agreed(lab, 2)
    assert tiny.Endless.stopped - before >= 2
    assert all(len(lab.rounds(1)[number]["participants"]) == 3 for number in (1, 2))


# Disks that fail


async def test_a_member_whose_disk_fails_is_quiet_until_it_works_again(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tiny_manifest(4, rounds=6), tmp_path)
    write, broken = TaskState.write, [False]

    def failing(state: TaskState, entries: object) -> None:
        if broken[0] and "/4/" in str(state._files):
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
    journal = Journal(FolderFiles(folder), "journal")
    journal.append([b"nonsense", b"more"])
    journal.close()
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(2, 1, 2, 3)
    [event] = lab.task_events(4)
    assert event["state"] == "waiting"
    assert "remove the folder" in event["reason"]


OTHER_MODEL = codec.encode({"w": np.zeros(4, np.float32)})


async def test_a_checkpoint_of_another_kind_of_model_is_not_guessed_at(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(1, rounds=1), tmp_path)
    folder = tmp_path / "1" / "tasks" / lab.manifest.task_id.hex()
    state = TaskState(FolderFiles(folder), lab.manifest.task_id, 1000)
    state.restore()
    model = Model(digest=digest(OTHER_MODEL), root=blob_root(OTHER_MODEL), size=len(OTHER_MODEL))
    certificate = certified(model, 1, lab.manifest.task_id)
    state.checkpoint(certificate, [certificate], OTHER_MODEL)
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


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StoreFull(9, 5, 0)])
async def test_a_full_blob_store_or_disk_is_waited_for(
    error: Exception, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tiny_manifest(3, rounds=1))
    async with open_lab(lab) as nursery:
        attempts = []

        def full(data: bytes) -> bytes:
            attempts.append(len(data))
            raise error

        monkeypatch.setattr(lab.store(1), "put", full)
        await nursery.start(lab.run, 1)
        await trio.sleep(4 * STORAGE_RETRY)
        assert len(attempts) // (2 if isinstance(error, StoreFull) else 1) in (3, 4)  # spares give way
        monkeypatch.undo()
        for number in (2, 3):
            await nursery.start(lab.run, number)
        await lab.until_round(1, 1, 2, 3)
    states = [event["state"] for event in lab.task_events(1)]
    assert states == ["waiting", "joined", "joined", "finished"]


async def test_what_a_round_needs_stays_in_a_store_that_others_fill_until_the_task_ends(
    autojump_clock: MockClock,
) -> None:
    lab = Lab(tiny_manifest(3, rounds=3))
    store = lab.store(1)
    async with open_lab(lab, 1, 2, 3):
        await lab.until_round(1, 1, 2, 3)
        for number in range(5):
            store.put(bytes([number]) * (store.capacity // 4))
        await lab.until_finished(1, 2, 3)
        for number in range(5):
            store.put(bytes([number]) * (store.capacity // 4))
        digests = {digest(data) for data in map(store.get, store.roots()) if data is not None}
        assert bytes.fromhex(lab.rounds(1)[3]["digest"]) in digests
    assert_agreed(lab, 3)
    for number in range(5):
        store.put(bytes([number]) * (store.capacity // 4))
    assert all(
        data is not None and len(data) == store.capacity // 4 for data in map(store.get, store.roots())
    )


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
