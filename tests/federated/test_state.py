from __future__ import annotations

from pathlib import Path

import pytest

from federated import state as state_module
from federated.errors import StorageError
from federated.journal import CheckpointStore, Journal, SavedState
from federated.rounds.messages import Block, Certificate, Hello, Model, Reveal, inputs_hash
from federated.rounds.wire import encode_entry
from federated.state import Restored, TaskState
from federated.workbench import digest
from p2p.files import FolderFiles

TASK = bytes(range(32))
MODEL = b"a model" * 100
ENTRY = Reveal(round=3, root=bytes(32), size=7, nonce=bytes(32), examples=1)


def certificate(model: bytes = MODEL, task: bytes = TASK, number: int = 2) -> Certificate:
    hashes = Model(digest=digest(model), root=bytes(32), size=len(model))
    block = Block(
        task=task,
        round=number,
        base=bytes(32),
        inputs=inputs_hash((bytes(32),)),
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
    state.checkpoint(certificate(), MODEL)
    state.write([ENTRY])
    state.close()
    state, restored = opened(tmp_path)
    assert restored == Restored(certificate=certificate(), model=MODEL, entries=(ENTRY,))
    state.close()


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
    state.checkpoint(certificate(), MODEL)
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


def test_the_certificates_of_earlier_rounds_are_kept_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "HISTORY", 2)
    made = [certificate(number=number) for number in range(1, 8)]
    state = TaskState(FolderFiles(tmp_path), TASK, 1000, keeps_history=True)
    assert state.restore().history == ()
    for count, item in enumerate(made, start=1):
        state.checkpoint(item, MODEL)
        state.close()
        state = TaskState(FolderFiles(tmp_path), TASK, 1000, keeps_history=True)
        restored = state.restore()
        assert restored.certificate == item
        assert restored.history[-2:] == tuple(made[:count])[-2:]
        assert len(restored.history) <= 4
    state.close()
    plain = TaskState(FolderFiles(tmp_path), TASK, 1000)
    assert plain.restore().history == ()
    plain.close()
