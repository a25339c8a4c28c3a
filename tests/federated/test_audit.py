from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated import audit
from federated.audit import (
    GENESIS,
    JsonLinesTrail,
    NullTrail,
    Record,
    check_trail,
    decode_entry,
    encode_record,
)
from federated.errors import StorageError
from p2p.files import Files, FolderFiles
from sim.disk import SimDisk

FIRST = "audit-00000001.jsonl"


def record(number: int, **changes: object) -> Record:
    values = {
        "time_ns": 1_800_000_000_000_000_000 + number,
        "actor": "one",
        "action": "vote",
        "object": f"round {number}",
        "outcome": "notarize",
        "body": {"number": number, "text": "größer"},
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def written(files: Files, *batches: list[Record]) -> JsonLinesTrail:
    trail = JsonLinesTrail(files)
    for batch in batches:
        trail.append(batch)
    trail.close()
    return trail


@pytest.fixture
def files(tmp_path: Path) -> FolderFiles:
    """A trail of five entries in one file."""
    files = FolderFiles(tmp_path / "task")
    written(files, [record(1), record(2)], [record(3)], [record(4), record(5)])
    return files


def test_each_line_follows_the_one_before(files: FolderFiles, tmp_path: Path) -> None:
    lines = (tmp_path / "task" / FIRST).read_bytes().splitlines()
    entries = [decode_entry(line) for line in lines]
    assert [entry.record for entry in entries] == [record(number) for number in range(1, 6)]
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.previous for entry in entries] == [GENESIS, *(entry.hash for entry in entries[:-1])]
    found = check_trail(files)
    assert (found.entries, found.first, found.last, found.fault) == (5, 1, 5, None)
    assert found.head == entries[-1].hash


def test_a_line_has_the_leaf_hash_of_a_merkle_log() -> None:
    line, digest = encode_record(record(1), 1, GENESIS)
    value = json.loads(line)
    assert value.pop("hash") == digest.hex()
    leaf = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert digest == audit.sha256(b"\x00" + leaf).digest()


def test_an_empty_trail_is_in_order(tmp_path: Path) -> None:
    found = check_trail(FolderFiles(tmp_path))
    assert (found.entries, found.head, found.fault) == (0, GENESIS, None)


def test_a_trail_goes_on_where_an_earlier_process_stopped(files: FolderFiles) -> None:
    written(files, [record(6)])
    found = check_trail(files)
    assert (found.entries, found.last, found.fault) == (6, 6, None)


def test_an_end_torn_at_any_byte_is_cut_off(files: FolderFiles) -> None:
    whole = files.read(FIRST, 0, 1 << 20)
    torn = SimDisk(random.Random(1)).mount()
    for size in range(whole[:-1].rfind(b"\n") + 1, len(whole)):
        torn.write(FIRST, whole[:size])
        assert written(torn, [record(6)]).damage is None
        found = check_trail(torn)
        assert (found.entries, found.fault) == (5, None)


def test_every_changed_byte_is_found(files: FolderFiles, tmp_path: Path) -> None:
    path = tmp_path / "task" / FIRST
    whole = path.read_bytes()
    start = whole.find(b"\n") + 1
    line = whole[start : whole.find(b"\n", start)]
    for at in range(len(line)):
        with pytest.raises(ValueError, match=r"is no entry|is not what was written"):
            decode_entry(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :])
    path.write_bytes(whole.replace(b"notarize", b"finalize"))
    assert check_trail(files).fault == f"{FIRST}: line 1 is not what was written"


@pytest.mark.parametrize("order", [(0, 1, 3, 4), (0, 2, 1, 3, 4), (0, 1, 1, 2, 3, 4)])
def test_lines_that_are_dropped_moved_or_repeated_are_found(
    order: tuple[int, ...], files: FolderFiles, tmp_path: Path
) -> None:
    path = tmp_path / "task" / FIRST
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in order))
    fault = check_trail(files).fault
    assert fault is not None
    assert "does not follow" in fault


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"nonsense", b'{"hash":""}', b"[" * 100_000, b'{"hash":1,"seq":"\xff"}']
)
def test_what_is_no_entry_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="is no entry"):
        decode_entry(line)


def test_another_form_of_the_same_entry_is_refused() -> None:
    line, _ = encode_record(record(1), 1, GENESIS)
    with pytest.raises(ValueError, match="is not what was written"):
        decode_entry(json.dumps(json.loads(line)).encode())


def test_after_damage_the_trail_goes_on_in_the_next_file(files: FolderFiles, tmp_path: Path) -> None:
    path = tmp_path / "task" / FIRST
    damaged = path.read_bytes().replace(b'"round 2"', b'"round 7"')
    path.write_bytes(damaged)
    trail = written(files, [record(6)])
    assert trail.damage == f"{FIRST}: line 2 is not what was written"
    assert path.read_bytes() == damaged
    assert check_trail(files).fault == trail.damage
    path.unlink()
    found = check_trail(files)
    assert (found.entries, found.first, found.fault) == (1, 2, None)


def test_files_are_bounded_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_FILE", 600)
    monkeypatch.setattr(audit, "KEPT", 3)
    files = FolderFiles(tmp_path)
    (tmp_path / "audit-notes.jsonl").write_text("not ours")
    for number in range(1, 31):
        written(files, [record(number)])  # a process each
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "audit-notes.jsonl")
    assert len(names) == 3
    found = check_trail(files)
    assert (found.last, found.fault) == (30, None)
    assert found.first == 30 - found.entries + 1 > 1
    (tmp_path / names[1]).unlink()
    assert "does not follow" in (check_trail(files).fault or "")


def test_a_body_that_is_too_long_is_kept_as_its_hash(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    written(files, [record(1, body={"text": "x" * audit.MAX_LINE}), record(2)])
    first = decode_entry((tmp_path / FIRST).read_bytes().splitlines()[0])
    assert set(first.record.body) == {"sha256", "size"}
    assert first.record.body["size"] > audit.MAX_LINE
    assert check_trail(files).entries == 2


def test_a_file_that_was_begun_and_not_written_to_is_gone_on_with(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    written(files, [record(1), record(2)])
    (tmp_path / "audit-00000002.jsonl").touch()
    written(files, [record(3)])
    found = check_trail(files)
    assert (found.entries, found.last, found.fault) == (3, 3, None)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        JsonLinesTrail(FolderFiles(tmp_path / "file"))
    with pytest.raises(StorageError, match="missing"):
        check_trail(FolderFiles(tmp_path / "missing"))


FAULTS = st.lists(st.sampled_from(["append", "append", "crash", "errors", "fine", "full"]), max_size=40)


@settings(deadline=None, max_examples=60)
@given(FAULTS, st.integers(0, 2**32))
def test_what_was_written_survives_every_crash_and_nothing_is_out_of_order(
    steps: list[str], seed: int
) -> None:
    """On a disk that forgets what is not synced, tears what it was writing, gets full, and fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "MAX_FILE", 800)
        disk = SimDisk(random.Random(seed))
        trail: JsonLinesTrail | None = None
        acknowledged = 0
        for number, step in enumerate(steps):
            match step:
                case "append":
                    try:
                        trail = trail or JsonLinesTrail(disk.mount())
                        trail.append([record(number), record(number, actor="two")])
                        acknowledged += 2
                    except StorageError:
                        pass
                case "crash":
                    disk.crash()
                    trail = None
                case "errors" | "fine":
                    disk.error_share = 0.5 if step == "errors" else 0.0
                    disk.full = False
                case "full":
                    disk.full = True
        disk.full, disk.error_share = False, 0.0
        disk.crash()
        if acknowledged:
            last = JsonLinesTrail(disk.mount())
            assert last.damage is None
            found = check_trail(disk.mount())
            assert found.fault is None
            assert found.last >= acknowledged


def test_the_null_trail_takes_everything() -> None:
    NullTrail().record("one", "vote", "round 1", "notarize", {})


def test_a_trail_leaves_alone_what_others_are_about_to_write(tmp_path: Path) -> None:
    unfinished = tmp_path / "checkpoint-00000001.partial"
    unfinished.write_bytes(b"half")
    written(FolderFiles(tmp_path), [record(1)])
    assert unfinished.exists()
