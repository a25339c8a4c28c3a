"""What a peer reports is read back from the event files that TensorBoard would read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from federated.cli import main
from plugins.listeners.event_file import LARGEST, crc32c, first_record, scalar_record
from plugins.listeners.tensorboard import TensorBoard

TASK = "ab" * 32
ME, OTHER = "12D3KooWme-my-own-name", "12D3KooWother-their-name"
ROUND: dict[str, Any] = {
    "event": "round",
    "task": TASK,
    "round": 3,
    "skipped": False,
    "participants": [ME, OTHER],
    "refused": [{"peer": OTHER, "rule": "norm"}],
    "late": [],
    "seconds": 1.5,
    "phases": {"train": 1.0, "commit": 0.25},
    "accuracy": 0.75,
    "loss": None,
    "bytes_sent": 1000,
    "training": {"steps": 20.0, "broken": None},
    "privacy": {"epsilon": 0.5},
}
QUALITY: dict[str, Any] = {
    "event": "quality",
    "task": TASK,
    "round": 3,
    "before": 1.0,
    "after": 0.5,
    "peers": [{"peer": OTHER, "gain": -0.25, "leave_one_out": None}],
}


# what tensorboardX 2.6.5 writes of the events of `test_a_file_is_what_others_write`
FILE = (
    "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"
    "3500000000000000d6c55de60900001040fc54d94110ac022a270a150a0e6d6f64656c2f6163637572616379150000403f"
    "0a0e0a076761696e2fc3a4156f1283ba9a1ff35e"
)


def event_class() -> Any:
    """The message Event of TensorFlow as protobuf reads it, with the fields that there are of scalars."""
    file = FileDescriptorProto(name="event.proto", syntax="proto3")
    value = file.message_type.add(name="Value")
    value.field.add(name="tag", number=1, type=9, label=1)
    value.field.add(name="simple_value", number=2, type=2, label=1)
    summary = file.message_type.add(name="Summary")
    summary.field.add(name="value", number=1, type=11, label=3, type_name="Value")
    event = file.message_type.add(name="Event")
    event.field.add(name="wall_time", number=1, type=1, label=1)
    event.field.add(name="step", number=2, type=3, label=1)
    event.field.add(name="file_version", number=3, type=9, label=1)
    event.field.add(name="summary", number=5, type=11, label=1, type_name="Summary")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("Event"))


EVENT = event_class()


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of all event files of a run; records are length, checksum, event, checksum."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = EVENT.FromString(data[12 : 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + size :]
    return found


def test_a_file_is_what_others_write() -> None:
    now = 1700000000.25
    record = scalar_record(now, 300, [("model/accuracy", 0.75), ("gain/ä", -1e-3)])
    assert (first_record(now) + record).hex() == FILE


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_what_is_beyond_float32_is_its_largest(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(scalar_record(0.0, 0, [("a", 1e300), ("b", -1e300)]))
    assert scalars(tmp_path) == [("a", 0, LARGEST), ("b", 0, -LARGEST)]


def test_a_round_is_written(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path / "new" / "runs"))
    board.hear(ME, {"event": "task", "task": TASK, "name": "digits", "state": "joined"})
    board.hear(ME, {"event": "phase", "task": TASK, "round": 3, "phase": "train", "seconds": 1.0})
    board.hear(ME, ROUND)
    run = tmp_path / "new" / "runs" / "digits-abababab" / "own-name"
    found = {tag: value for tag, step, value in scalars(run) if step == 3}
    resources = {tag: value for tag, value in found.items() if tag.startswith("resources/")}
    assert {tag: value for tag, value in found.items() if tag not in resources} == {
        "model/accuracy": 0.75,
        "round/seconds": 1.5,
        "round/participants": 2.0,
        "round/refused": 1.0,
        "round/late": 0.0,
        "round/skipped": 0.0,
        "round/bytes_sent": 1000.0,
        "phases/train": 1.0,
        "phases/commit": 0.25,
        "training/steps": 20.0,
        "privacy/epsilon": 0.5,
    }
    assert resources["resources/process_memory_bytes"] > 1e7
    assert "resources/disk_free_bytes" in resources
    board.close()


def test_peers_and_tasks_have_runs_of_their_own(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path))
    for peer, task in ((ME, TASK), (OTHER, TASK), (ME, "cd" * 32)):
        board.hear(peer, {**QUALITY, "task": task})
    board.hear(ME, {**QUALITY, "round": 4})
    told = {"event": "objection", "task": "cd" * 32, "round": 4, "before": 0.5, "after": None}
    board.hear(ME, told)
    board.hear(ME, {**told, "round": 5, "after": 0.75})
    board.close()
    folders = ["abababab/eir-name", "abababab/own-name", "cdcdcdcd/own-name"]
    assert sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("events.*")) == folders
    worth = [("quality/loss_before", 1.0), ("quality/loss_after", 0.5), ("gain/eir-name", -0.25)]
    assert scalars(tmp_path / folders[0]) == [(tag, 3, value) for tag, value in worth]
    against = [("objection/before", 4, 0.5), ("objection/before", 5, 0.5), ("objection/after", 5, 0.75)]
    assert scalars(tmp_path / folders[2])[-3:] == against
    assert scalars(tmp_path / folders[1]) == [(tag, step, value) for step in (3, 4) for tag, value in worth]


def test_a_place_that_cannot_be_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["run", "--tell", f"tensorboard={tmp_path}/file"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"--tell tensorboard={tmp_path}/file: " in told


def test_a_run_in_one_process_is_written(tmp_path: Path) -> None:
    options = ["--peers", "2", "--rounds", "2", "--set", "trainer.hidden=[4]", "--set", "trainer.epochs=1"]
    assert main(["run", *options, "--json", "--tell", f"tensorboard={tmp_path}"]) == 0
    runs = [path.parent for path in tmp_path.rglob("events.*")]
    assert len(runs) == 2
    for run in runs:
        assert run.parent.name.startswith("digits-")
        steps = [step for tag, step, value in scalars(run) if tag == "model/accuracy" and 0 < value <= 1]
        assert steps == [1, 2]
