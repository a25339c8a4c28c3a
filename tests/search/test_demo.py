"""What `atcp demo` does that takes long: two tasks at once, one of them with torch; the first peer lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.federated.demo.test_demo import ATCP, SMALL, peers_of
from tests.processes import run_process

pytestmark = pytest.mark.timeout(300)


async def test_two_tasks_train_at_once_on_the_same_peers(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="one of the two tasks needs it")
    command = [*ATCP, "demo", "--trainer", "both", "--peers", "2", "--json", "--rounds", "2"]
    async with run_process([*command, "--report", str(tmp_path)]) as demo:
        tasks = [(await demo.wait_for("round", lambda event: event["round"] == 1))["task"]]
        await demo.wait_for("round", lambda event: event["task"] not in tasks)
        result = await demo.wait_for("result")
        assert await demo.process.wait() == 0
    assert result["certified"] == 2
    tasks = json.loads((Path(result["report"]) / "results.json").read_text())["tasks"]
    assert [(task["trainer"], task["certified"], task["digests_agree"]) for task in tasks] == [
        ("numpy", 2, True),
        ("torch", 2, True),
    ]


async def test_the_death_of_the_first_peer_does_not_stop_the_others(tmp_path: Path) -> None:
    command = [*ATCP, *SMALL, "--rounds", "4", "--report", str(tmp_path)]
    async with run_process(command) as demo:
        started = await demo.wait_for("started")
        await demo.wait_for("round", lambda event: event["round"] == 1)
        first = next(p for p in peers_of(demo.process) if any("peer-0" in part for part in p.cmdline()))
        first.kill()
        assert (await demo.wait_for("lost"))["peer"] == started["peer_ids"][0]
        assert (await demo.wait_for("result"))["digests_agree"] is True
        assert await demo.process.wait() == 0
