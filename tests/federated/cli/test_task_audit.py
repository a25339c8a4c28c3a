"""`atcp task metrics` and `atcp task audit`, beside a running peer and after it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from federated.audit import decode_entry
from federated.cli import main
from federated.manifest import PluginRef, TaskManifest
from p2p.data_dir import open_data_dir
from p2p.peer_id import PeerId
from tests.processes import PEER, run_process

pytest.importorskip("sklearn", reason="the task's data comes from scikit-learn")

ATCP = [sys.executable, "-m", "federated.cli"]


def write_task(folder: Path) -> TaskManifest:
    """A task of one member, whose data folder is `folder`, in its file task.json."""
    with open_data_dir(folder) as key:
        peer = PeerId.from_public_key(key.public)
    manifest = TaskManifest(
        name="alone",
        seed=1,
        rounds=2,
        members=[str(peer)],
        preprocessor=PluginRef(name="digits"),
        trainer=PluginRef(name="numpy-mlp", settings={"epochs": 1}),
        aggregator=PluginRef(name="weighted-mean"),
        validator=PluginRef(name="update-check"),
    )
    (folder / "task.json").write_bytes(manifest.canonical())
    return manifest


async def atcp(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    done = await trio.run_process(
        [*ATCP, *arguments], capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.decode()


async def test_a_peer_counts_and_writes_down_what_its_task_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    task = write_task(tmp_path).task_id.hex()
    async with run_process([*PEER, "--data-dir", folder, "--task", str(tmp_path / "task.json")]) as peer:
        await peer.wait_for("task", lambda event: event["state"] == "finished")
        text = await atcp("task", "metrics", "--data-dir", folder)
        peer.process.send_signal(signal.SIGTERM)
        assert await peer.process.wait() == 0
    samples = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["atcp_rounds_total", "certified", task] == 2
    assert samples["atcp_quorums_total", "finalize", task] == 2
    assert main(["task", "audit", "--data-dir", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["fault"], found["first"]) == (task, None, 1)
    path = tmp_path / "tasks" / task / "audit-00000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert found["entries"] == len(lines)
    records = [decode_entry(line.rstrip()).record for line in lines]
    assert [record.object for record in records if record.action == "certificate"] == [
        "round 1 view 1",
        "round 2 view 1",
    ]
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert main(["task", "audit", "--data-dir", folder]) == 1
    assert "does not follow entry 1" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["metrics", "audit"])
def test_a_folder_without_a_peer_is_one_line_and_status_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["task", command, "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["metrics", "audit"])
def test_both_commands_explain_themselves(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["task", command, "--help"])
    assert "--data-dir" in capsys.readouterr().out
