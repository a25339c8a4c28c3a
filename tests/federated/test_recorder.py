from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from federated import recorder as module
from federated.audit import AuditTrail, check_trail, decode_entry
from federated.compute import InlineCompute, ThreadCompute
from federated.recorder import CLOSE_GRACE, MAX_QUEUE, PERIOD, Recorder, open_recorder
from p2p.files import FolderFiles

FIRST = "audit-00000001.jsonl"


def say(recorder: AuditTrail, *numbers: int) -> None:
    for number in numbers:
        recorder.record("one", "vote", f"round {number}", "notarize", {})


def objects(folder: Path) -> list[str]:
    """What the trail has, in its order."""
    lines = (folder / FIRST).read_bytes().splitlines()
    return [decode_entry(line).record.object for line in lines]


def wall_clock() -> float:
    return 1_800_000_000.0 + trio.current_time()


async def test_records_are_written_together_after_a_period(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_recorder(FolderFiles(tmp_path), wall_clock, InlineCompute()) as recorder:
        say(recorder, 1, 2)
        await trio.sleep(PERIOD / 2)
        assert not (tmp_path / FIRST).exists()
        await trio.sleep(PERIOD)
        assert objects(tmp_path) == ["round 1", "round 2"]
        say(recorder, 3)
    assert objects(tmp_path) == ["round 1", "round 2", "round 3"]  # closing writes what is left
    entry = decode_entry((tmp_path / FIRST).read_bytes().splitlines()[2])
    assert entry.record.time_ns > 1_800_000_000 * 10**9


async def test_without_files_nothing_is_kept() -> None:
    async with open_recorder(None) as trail:
        trail.record("one", "vote", "round 1", "notarize", {})


async def test_many_records_keep_their_order(tmp_path: Path) -> None:
    async with open_recorder(FolderFiles(tmp_path), wall_clock) as recorder:
        say(recorder, *range(500))
    assert objects(tmp_path) == [f"round {number}" for number in range(500)]
    assert check_trail(FolderFiles(tmp_path)).fault is None


async def test_while_the_disk_fails_records_wait_and_what_is_lost_is_counted(
    tmp_path: Path,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUE", 3)
    blocker = tmp_path / "task"
    blocker.touch()  # no folder can be made there
    async with open_recorder(FolderFiles(blocker), wall_clock, InlineCompute()) as recorder:
        say(recorder, 1, 2, 3, 4, 5)
        await trio.sleep(5 * PERIOD)
        assert isinstance(recorder, Recorder)
        assert recorder.lost == 2
        assert caplog.text.count("the audit trail waits for the disk") == 1
        blocker.unlink()
        await trio.sleep(2 * PERIOD)
        assert objects(blocker) == ["round 1", "round 2", "round 3"]
        say(recorder, 6)
    assert objects(blocker) == ["round 1", "round 2", "round 3", "audit", "round 6"]
    lost = decode_entry((blocker / FIRST).read_bytes().splitlines()[3]).record
    assert (lost.outcome, lost.body) == ("lost", {"entries": 2})
    assert MAX_QUEUE > 1000


async def test_damage_is_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = FolderFiles(tmp_path)
    for _ in range(2):
        async with open_recorder(files, wall_clock) as recorder:
            say(recorder, 1)
        (tmp_path / FIRST).write_bytes(b"nonsense\n")
    lines = (tmp_path / "audit-00000002.jsonl").read_bytes().splitlines()
    first = decode_entry(lines[0]).record
    assert (first.action, first.outcome) == ("resume", "damaged")
    assert FIRST in first.body["fault"]
    assert "is no entry" in caplog.text


class StuckCompute(InlineCompute):
    """Nothing comes back."""

    async def run(self, job, kind="other"):  # type: ignore[no-untyped-def]
        await trio.sleep_forever()


async def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_recorder(FolderFiles(tmp_path), wall_clock, StuckCompute()) as recorder:
        say(recorder, 1)
        await trio.sleep(2 * PERIOD)
        started = trio.current_time()
    assert trio.current_time() == started + CLOSE_GRACE


async def test_a_write_that_is_cancelled_is_neither_lost_nor_repeated(tmp_path: Path) -> None:
    recorder = Recorder(FolderFiles(tmp_path), ThreadCompute(), wall_clock)
    say(recorder, *range(200))
    for _ in range(5):
        with trio.CancelScope() as scope:
            scope.cancel()
            await recorder._write()
    await recorder._close()
    assert objects(tmp_path) == [f"round {number}" for number in range(200)]
