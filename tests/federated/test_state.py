from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from federated import state as state_module
from federated.errors import StorageError
from federated.journal import CheckpointStore, Journal, SavedState
from federated.rounds.committee import Membership
from federated.rounds.messages import (
    Accuse,
    Block,
    Certificate,
    Change,
    ChangeKind,
    Choice,
    Evidence,
    Hello,
    Leave,
    Model,
    Reveal,
    Vote,
)
from federated.rounds.wire import encode_entry
from federated.state import Restored, TaskState
from federated.workbench import digest
from p2p.files import FolderFiles, OpenFile
from tests.federated.mortal import Died, Reaper
from tests.federated.samples import peer

TASK = bytes(range(32))
MODEL = b"a model" * 100
JOIN = Change(kind=ChangeKind.JOIN, peer=peer(9), proof=bytes(32))
ENTRY = Reveal(round=3, root=bytes(32), size=7, nonce=bytes(32), examples=1)


def certificate(model: bytes = MODEL, task: bytes = TASK, number: int = 2) -> Certificate:
    hashes = Model(digest=digest(model), root=bytes(32), size=len(model))
    block = Block(
        task=task,
        parent=bytes(32),
        round=number,
        base=bytes(32),
        inputs=bytes(32),
        participants=1,
        examples=1,
        model=hashes,
    )
    return Certificate(view=1, block=block, votes=((0, bytes(64)),))


def opened(folder: Path | None) -> tuple[TaskState, Restored]:
    state = TaskState(None if folder is None else FolderFiles(folder), TASK, len(MODEL))
    return state, state.restore()


def test_a_new_folder_is_made_and_empty(tmp_path: Path) -> None:
    state, restored = opened(tmp_path / "tasks" / "one")
    assert restored == Restored()
    state.close()


def test_what_is_written_is_there_after_a_crash(tmp_path: Path) -> None:
    state, _ = opened(tmp_path)
    state.write([ENTRY])
    state.write([ENTRY, ENTRY])
    state.close()
    state, restored = opened(tmp_path)
    assert restored == Restored(entries=(ENTRY, ENTRY, ENTRY))
    state.close()


def test_a_checkpoint_ends_the_journal_of_its_round(tmp_path: Path) -> None:
    state, _ = opened(tmp_path)
    state.write([ENTRY])
    [made] = chain(1)
    state.checkpoint(made, [made], MODEL)
    state.write([ENTRY])
    state.close()
    state, restored = opened(tmp_path)
    assert restored == Restored(certificate=made, model=MODEL, entries=(ENTRY,), history=(made,))
    state.close()


def test_a_checkpoint_that_is_saved_leaves_the_journal_until_that_is_crowded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = opened(tmp_path)
    state.write([ENTRY])
    monkeypatch.setattr(
        state_module, "CROWDED", sum(path.stat().st_size for path in tmp_path.glob("journal"))
    )
    [made] = chain(1)
    state.save(made, [made], MODEL)
    assert not state.is_crowded
    state.write([ENTRY])
    assert state.is_crowded
    state.close()
    state, restored = opened(tmp_path)
    assert restored == Restored(certificate=made, model=MODEL, entries=(ENTRY, ENTRY), history=(made,))
    state.forget()
    assert not state.is_crowded
    state.close()
    assert not opened(tmp_path)[1].entries


def test_a_restore_can_be_made_again(tmp_path: Path) -> None:
    state, _ = opened(tmp_path)
    state.write([ENTRY])
    assert state.restore() == Restored(entries=(ENTRY,))
    state.write([ENTRY])
    assert state.restore() == Restored(entries=(ENTRY, ENTRY))
    state.close()
    state.close()


def test_without_a_folder_nothing_is_kept() -> None:
    state, restored = opened(None)
    state.write([ENTRY])
    state.checkpoint(certificate(), [certificate()], MODEL)
    assert restored == state.restore() == Restored()
    state.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/task: Not a directory"):
        opened(tmp_path / "file" / "task")


@pytest.mark.parametrize(
    "record", [b"nonsense", encode_entry(bytes(32), ENTRY), encode_entry(TASK, ENTRY)[:-1]]
)
def test_a_journal_of_something_else_is_refused(record: bytes, tmp_path: Path) -> None:
    journal = Journal(FolderFiles(tmp_path), "journal")
    journal.append([record])
    journal.close()
    with pytest.raises(StorageError, match="remove the folder to start anew"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        encode_entry(TASK, certificate(b"another model")),
        encode_entry(TASK, Hello(round=1, base=bytes(32))),
        b"nonsense",
    ],
)
def test_a_checkpoint_that_does_not_hold_its_model_is_refused(record: bytes, tmp_path: Path) -> None:
    CheckpointStore(FolderFiles(tmp_path), len(MODEL)).save(2, SavedState(certificate=record, model=MODEL))
    with pytest.raises(StorageError):
        opened(tmp_path)


def chain(count: int) -> list[Certificate]:
    """Certificates of the first rounds, one after the other; the second round lets somebody in."""
    made: list[Certificate] = []
    for number in range(1, count + 1):
        known = certificate(number=number)
        parent = made[-1].block.hash if made else TASK
        changes = (JOIN,) if number == 2 else ()
        made.append(replace(known, block=replace(known.block, parent=parent, changes=changes)))
    return made


def test_all_certificates_are_kept_and_the_newest_are_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "HISTORY", 3)
    made = chain(8)
    state, _ = opened(tmp_path)
    for first, last in ((0, 1), (1, 2), (2, 7), (7, 8)):
        state.checkpoint(made[last - 1], made[first:last], MODEL)
        state.close()
        state, restored = opened(tmp_path)
        assert restored.certificate == made[last - 1]
        assert restored.history == tuple(made[:last][-3:])
        assert restored.changes == (((JOIN,),) if last > 1 else ())
    encoded = [encode_entry(TASK, item) for item in made]
    assert state.certificates(1, 64) == encoded
    assert state.certificates(3, 2) == encoded[2:4]
    assert state.certificates(8, 64) == encoded[7:]
    assert state.certificates(9, 64) == []
    state.close()
    members = Membership(TASK, [peer(1), peer(2)])
    assert restored.membership(members) == members.apply((JOIN,))


class Mortal(FolderFiles):
    """A folder whose process dies at the write of this number, before or after it."""

    def __init__(self, path: Path, live: Callable[[], None]) -> None:
        super().__init__(path)
        self._live = live

    def write_durably(self, name: str, data: bytes) -> None:
        self._live()
        super().write_durably(name, data)
        self._live()

    def remove(self, name: str) -> None:
        self._live()
        super().remove(name)

    def open(self, name: str) -> OpenFile:
        return MortalFile(super().open(name), self._live)


class MortalFile:
    def __init__(self, file: OpenFile, live: Callable[[], None]) -> None:
        self._file = file
        self._live = live

    def write(self, offset: int, *pieces: bytes | memoryview) -> None:
        data = b"".join(pieces)
        self._live()
        self._file.write(offset, data[: len(data) // 2])
        self._live()
        self._file.write(offset, data)

    def truncate(self, size: int) -> None:
        self._live()
        self._file.truncate(size)

    def sync(self) -> None:
        self._live()
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def test_a_crash_at_any_write_of_a_checkpoint_leaves_no_gap_and_no_end_without_a_model(
    tmp_path: Path,
) -> None:
    made, ends, died = chain(6), set[tuple[int, int]](), True
    operation = 0
    while died:
        reaper = Reaper()
        state = TaskState(Mortal(tmp_path / str(operation), reaper), TASK, len(MODEL))
        state.restore()
        state.checkpoint(made[1], made[:2], MODEL)
        reaper.kill_in(operation)
        died = False
        try:
            state.checkpoint(made[5], made[2:], MODEL)
        except Died:
            died = True
        state.close()
        _, restored = opened(tmp_path / str(operation))
        assert restored.certificate is not None
        assert restored.history == tuple(made[: len(restored.history)])
        ends.add((restored.certificate.round, len(restored.history)))
        operation += 1
    assert ends == {(2, 2), (2, 3), (2, 5), (6, 6)}


def test_evidence_and_our_leave_are_kept_when_the_round_is_over(tmp_path: Path) -> None:
    votes = [
        Vote(round=1, view=1, choice=Choice.NOTARIZE, block=bytes([label]) * 32, signature=bytes(64))
        for label in (1, 2)
    ]
    accusation = Accuse(evidence=Evidence(peer=peer(1), first=votes[0], second=votes[1]))
    leave = Leave(round=1, signature=bytes(64))
    state, _ = opened(tmp_path)
    state.write([ENTRY, accusation])
    state.write([leave])
    made = chain(1)
    state.checkpoint(made[0], made, MODEL)
    state.close()
    state, restored = opened(tmp_path)
    assert restored.entries == (accusation, leave)
    state.close()


def test_the_chain_that_admitted_us_is_there_before_any_model(tmp_path: Path) -> None:
    made = chain(3)
    for files in (None, FolderFiles(tmp_path)):
        state = TaskState(files, TASK, len(MODEL), made)
        for _ in range(2):
            restored = state.peek()
            assert (restored.certificate, restored.history) == (None, tuple(made))
            assert restored.changes == ((JOIN,),)
    state = TaskState(FolderFiles(tmp_path), TASK, len(MODEL), [made[2]])
    assert state.restore().history == tuple(made)
    state.close()


def test_without_files_the_newest_certificates_are_there_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "HISTORY", 3)
    state, made = TaskState(None, TASK, 1000), chain(5)
    for item in made:
        state.checkpoint(item, [item], MODEL)
    assert state.certificates(2, 3) == [encode_entry(TASK, item) for item in made[2:4]]
    assert state.certificates(4, 64) == [encode_entry(TASK, item) for item in made[3:]]


def test_a_chain_with_a_gap_or_of_other_blocks_is_refused(tmp_path: Path) -> None:
    made = chain(4)
    state, _ = opened(tmp_path)
    with pytest.raises(StorageError, match="ends at round 0, too early"):
        state.checkpoint(made[2], made[2:3], MODEL)
    state.checkpoint(made[0], made[:1], MODEL)
    other = replace(made[1], block=replace(made[1].block, parent=bytes(32)))
    state.checkpoint(other, [other], MODEL)
    state.close()
    with pytest.raises(StorageError, match="breaks at round 2"):
        opened(tmp_path)
