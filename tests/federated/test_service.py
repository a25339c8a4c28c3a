from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from federated.manifest import load_manifest
from federated.reports import Report
from federated.service import TaskService
from p2p.blobs import BlobStore, open_blobs
from p2p.errors import InvalidInput
from p2p.gossipsub import open_gossipsub
from p2p.host import Host
from tests.federated.lab import peer_number
from tests.support import open_memory_hosts

LIMIT = 30.0  # seconds


def task_file(folder: Path, **changes: Any) -> Path:
    """A manifest of real plugins for the members 1 to 3, in a file."""
    values: dict[str, Any] = {
        "name": "digits",
        "seed": 1,
        "rounds": 2,
        "members": [str(peer_number(number)) for number in (1, 2, 3)],
        "preprocessor": {"name": "digits"},
        "trainer": {"name": "numpy-mlp", "settings": {"hidden": [8], "epochs": 1}},
        "aggregator": {"name": "weighted-mean"},
        "validator": {"name": "update-check"},
    }
    path = folder / "task.json"
    path.write_text(json.dumps({**values, **changes}))
    return path


def test_the_service_is_found_by_its_name() -> None:
    [found] = entry_points(group="p2p.services", name="task")
    assert found.load() is TaskService


@pytest.mark.parametrize(
    ("changes", "plugins", "line"),
    [
        ({"rounds": 0}, [], r"^--task: task file .*/task.json: rounds: "),
        ({"members": ["nobody"]}, [], r"members: not a peer id: 'nobody'"),
        ({"trainer": {"name": "nothing"}}, [], r"^--task: no trainer 'nothing' is installed; there are: "),
        ({"trainer": {"name": "numpy-mlp", "settings": {"depth": 3}}}, [], r"'numpy-mlp': .*depth"),
        ({}, ["digits", "numpy-mlp", "weighted-mean"], r"plugin 'update-check' is not enabled here"),
        ({}, ["nothing"], r"^--task: no plugin 'nothing' is installed"),
        ({"members": ["QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"]}, [], r"cannot vote"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_in_one_line(
    changes: dict[str, Any], plugins: Sequence[str], line: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=line) as caught:
        TaskService(task_file(tmp_path, **changes), plugins)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read task file .*/none.json: No such file"):
        TaskService(tmp_path / "none.json", [])


async def run_service(
    host: Host, service: TaskService, folder: Path | None, report: Callable[[Report], None]
) -> None:
    async with open_gossipsub(host) as pubsub, open_blobs(host, BlobStore(None, 1 << 24)) as blobs:
        await service.run(host, pubsub, blobs, folder, report)


async def test_a_peer_that_is_no_member_is_refused_and_lives_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    service = TaskService(task_file(tmp_path), [])
    seen: list[Report] = []
    async with open_memory_hosts(4) as hosts:
        await run_service(hosts[3], service, tmp_path, seen.append)
    [event] = seen
    assert event["state"] == "refused"
    assert event["reason"] == f"{peer_number(4)} is not among the members"
    assert not (tmp_path / "tasks").exists()


async def test_a_peer_without_the_data_is_refused_and_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    service = TaskService(task_file(tmp_path), [])
    seen: list[Report] = []
    async with open_memory_hosts(1) as hosts:
        await run_service(hosts[0], service, tmp_path, seen.append)
    [event] = seen
    assert event["state"] == "refused"
    assert "scikit-learn" in event["reason"]


async def test_three_peers_train_on_digits_in_threads_and_agree(tmp_path: Path) -> None:
    """Real plugins, real threads, real files: two rounds of it."""
    path = task_file(tmp_path)
    seen: list[list[Report]] = [[], [], []]
    all_finished = trio.Event()

    def report(number: int, event: Report) -> None:
        seen[number].append(event)
        if all(events and events[-1].get("state") == "finished" for events in seen):
            all_finished.set()

    with trio.fail_after(LIMIT):
        async with open_memory_hosts(3) as hosts, trio.open_nursery() as nursery:
            for number, host in enumerate(hosts):
                for other in hosts[:number]:
                    await host.connect(other.peer_id, other.addresses())
                folder, service = tmp_path / str(number), TaskService(path, [])
                nursery.start_soon(run_service, host, service, folder, partial(report, number))
            await all_finished.wait()
            nursery.cancel_scope.cancel()
    rounds = [[event for event in events if event["event"] == "round"] for events in seen]
    assert [len(events) for events in rounds] == [2, 2, 2]
    for first, *others in zip(*rounds, strict=True):
        assert all(other["digest"] == first["digest"] for other in others)
        assert not first["skipped"]
        assert 0.05 < first["accuracy"] <= 1
        assert first["loss"] > 0
    task = load_manifest(path).task_id.hex()
    for number in range(3):
        assert sorted(path.name for path in (tmp_path / str(number) / "tasks" / task).iterdir()) == [
            "checkpoint-00000001",
            "checkpoint-00000002",
            "journal",
        ]
