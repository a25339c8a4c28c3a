"""Peers that are processes, one of which has a plugin that crashes, hangs and takes memory."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from federated.manifest import PluginRef, RoundPolicy
from federated.registry import GROUP
from p2p.data_dir import IDENTITY, save_identity
from tests.federated.lab import peer_number, tiny_manifest
from tests.processes import PEER, Event, Process, run_process
from tests.support import key_number

COMPLAINTS = {
    "endless_regex train": "the plugin process did not come to an end in time and was killed (bugs.py, line ",
    "segfault train": "the plugin process ended with signal 11, Segmentation fault (bugs.py, line ",
    "one_array train": "MemoryError: Unable to allocate 10.0 GiB for an array",
}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the buggy task."""
    metadata = folder / "buggy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: buggy\nVersion: 1.0\n")
    lines = f"[{GROUP}]\nbuggy = tests.federated.isolation.bugs:Buggy\n"
    (metadata / "entry_points.txt").write_text(lines)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(folder), *sys.path]))


def make_peer(folder: Path, number: int) -> Path:
    """The folder in which peer `number` runs, and its plugin finds its orders."""
    folder = folder / str(number)
    folder.mkdir()
    save_identity(folder / IDENTITY, key_number(number))
    (folder / "orders").write_text("")
    return folder


def write_task(folder: Path) -> Path:
    """A task of three, in which nobody is waited for longer than three seconds."""
    ref = PluginRef(name="buggy", settings={"orders": "orders"})
    policy = RoundPolicy(train_deadline_s=3.0, phase_deadline_s=3.0)
    check = PluginRef(name="update-check")
    manifest = tiny_manifest(
        3, preprocessor=ref, trainer=ref, validator=check, policy=policy, rounds=10_000, name="buggy"
    )
    path = folder / "task.json"
    path.write_bytes(manifest.canonical())
    return path


async def test_a_peer_whose_plugins_fail_goes_on_and_so_do_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    task = write_task(tmp_path)
    command = [*PEER, "--task", str(task), "--plugin-memory", "300"]
    async with AsyncExitStack() as stack:
        peers, bootstrap = list[Process](), list[str]()
        for number in (1, 2, 3):
            place = make_peer(tmp_path, number)
            started = run_process([*command, "--data-dir", str(place), *bootstrap], cwd=place)
            peer = await stack.enter_async_context(started)
            listening = await peer.wait_for("listening")
            bootstrap = ["--bootstrap", listening["addrs"][0]]
            peers.append(peer)
        buggy = peers[2]
        await buggy.wait_for("round", lambda event: event["round"] >= 2)
        for order, line in COMPLAINTS.items():
            (tmp_path / "3" / "orders").write_text(order)
            complaint = partial(has_reason, line)
            await buggy.wait_for("task", complaint)
        (tmp_path / "3" / "orders").write_text("")
        ours = str(peer_number(3))
        failed = max(event["round"] for event in buggy._waiting if event["event"] == "round")
        back = await buggy.wait_for(
            "round", lambda event: event["round"] > failed and ours in event["participants"]
        )
        last = back["round"]
        for peer in peers:
            await peer.wait_for("round", lambda event: event["round"] > last)
            assert peer.process.returncode is None
        digests, complete = dict[int, str](), 0
        for peer in peers[:2]:
            for number in range(1, last):
                event = await peer.wait_for("round", lambda event, number=number: event["round"] == number)
                complete += len(event["participants"]) >= 2
                assert digests.setdefault(number, event["digest"]) == event["digest"]
        assert complete > last  # more than half of the rounds of both, however busy the machine is


def has_reason(line: str, event: Event) -> bool:
    return line in (event.get("reason") or "")
