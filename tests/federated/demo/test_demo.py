"""`atcp demo` as people run it: real peers in real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from federated.cli import main
from federated.demo.process import PeerProcess
from federated.demo.run import Demo, DemoError, DemoSettings, run_demo
from federated.directory.signed import load_task_file
from tests.processes import run_process

pytest.importorskip("sklearn", reason="the demo's data comes from scikit-learn")

STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", flush=True)
signal.pause()
"""
ATCP = [sys.executable, "-m", "federated.cli"]
SMALL = ["demo", "--trainer", "numpy", "--peers", "3", "--json"]


def peers_of(process):
    """The peer processes of a demo."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if "p2p.peer" in child.cmdline()]


async def test_a_killed_peer_comes_back_and_all_models_agree(tmp_path):
    command = [*ATCP, *SMALL, "--rounds", "5", "--kill", "--report", str(tmp_path)]
    async with run_process(command) as demo:
        started = await demo.wait_for("started")
        assert len(started["peer_ids"]) == 3
        killed = await demo.wait_for("killed")
        assert killed["round"] == 3
        assert killed["peer"] in started["peer_ids"][1:]
        assert (await demo.wait_for("restarted"))["peer"] == killed["peer"]
        result = await demo.wait_for("result")
        assert await demo.process.wait() == 0
    assert set(result) == {
        *("event", "accuracy", "centralised_accuracy", "rounds", "certified", "peers"),
        *("digests_agree", "seconds", "bytes_sent", "liars", "liars_ejected", "report"),
    }
    assert (result["rounds"], result["certified"], result["peers"]) == (5, 5, 3)
    assert (result["digests_agree"], result["liars"], result["liars_ejected"]) == (True, [], True)
    assert result["accuracy"] > 0.8
    assert result["centralised_accuracy"] > 0.9
    report = Path(result["report"])
    written = json.loads((report / "results.json").read_text())
    [task] = written["tasks"]
    assert [len(record["digests"]) >= 2 for record in task["history"]] == [True] * 5
    assert [len(set(record["blocks"].values())) for record in task["history"]] == [1] * 5
    votes = [record["phases"].get("vote", 0.0) for record in task["history"]]
    assert any(votes)  # not all: whom the certificate of the others overtakes comes to no vote
    assert written["kills"][0]["back_in_round"] in (4, 5)
    assert (report / "accuracy.png").exists()
    assert (report / "peer-0.log").exists()


async def test_a_peer_that_votes_twice_is_ejected_with_evidence_and_the_others_go_on(tmp_path):
    command = [*ATCP, "demo", "--trainer", "numpy", "--peers", "4", "--json", "--rounds", "8"]
    async with run_process([*command, "--byzantine", "1", "--report", str(tmp_path)]) as demo:
        liar = (await demo.wait_for("started"))["peer_ids"][-1]
        ejected = await demo.wait_for("ejected")
        assert ejected["peer"] == liar
        result = await demo.wait_for("result")
        assert await demo.process.wait() == 0
    assert (result["certified"], result["digests_agree"]) == (8, True)
    assert (result["liars"], result["liars_ejected"]) == ([liar], True)
    report = Path(result["report"])
    [task] = json.loads((report / "results.json").read_text())["tasks"]
    [ejection] = task["ejections"]
    assert (ejection["peer"], ejection["round"], ejection["proven"]) == (liar, ejected["round"], True)
    assert len(ejection["votes"]) == 2
    for record in task["history"][ejected["round"] :]:
        assert liar not in record["participants"]
        assert len(record["blocks"]) == 3
    assert ejection["evidence"] in (report / "report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_takes_the_peers_along(number, tmp_path):
    command = [*ATCP, *SMALL, "--report", str(tmp_path)]
    async with run_process(command) as demo:
        await demo.wait_for("started")
        await demo.wait_for("phase")
        peers = peers_of(demo.process)
        assert len(peers) == 3
        demo.process.send_signal(number)
        assert await demo.process.wait() == 130
        assert not any(peer.is_running() for peer in peers)


def test_people_see_rounds_and_a_table(tmp_path):
    command = [*ATCP, *SMALL[:-1], "--rounds", "2", "--report", str(tmp_path)]
    command += ["--tell", f"tensorboard={tmp_path / 'runs'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0
    assert "round 2: accuracy" in done.stderr
    assert "3 peers trained digits together for 2 rounds" in done.stdout
    assert "2 rounds certified" in done.stdout
    assert "all models agree" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "runs").glob("digits-*/*/events.*"))) == 3


def test_a_seed_decides_who_takes_part(tmp_path):
    demos = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        settings = DemoSettings(peers=3, seed=seed, trainer="numpy")
        demos.append(Demo(settings, tmp_path / name, tmp_path, lambda event, ledger: None))
    assert demos[0].peer_ids == demos[1].peer_ids
    assert not set(demos[0].peer_ids) & set(demos[2].peer_ids)
    manifests = [load_task_file(tmp_path / name / "task.json")[0] for name in ("one", "again")]
    assert manifests[0].task_id == manifests[1].task_id


async def test_a_peer_that_cannot_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("federated.demo.process.LOOPBACK", "nonsense")
    settings = DemoSettings(peers=2, rounds=1, trainer="numpy")
    with pytest.raises(DemoError, match="not a multiaddr"):
        await run_demo(settings, tmp_path, lambda event, ledger: None)


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("federated.demo.process.STOP_GRACE", 0.1)
    script = tmp_path / "stubborn"
    program = tmp_path / "stubborn.py"
    program.write_text(STUBBORN)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}"\n')  # its path may have a space
    monkeypatch.setattr(sys, "executable", str(script))
    script.chmod(0o755)
    process = PeerProcess(tmp_path, [tmp_path / "task.json"], tmp_path / "peer.log")
    await process.stop()
    assert process.last_log_line() == ""
    await process.start([])
    events = process.events()
    await anext(events)
    with trio.fail_after(60):
        await process.stop()
    await events.aclose()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "COMMAND"),
        (["demo", "--peers", "0"], "from 1 to 64"),
        (["demo", "--peers", "many"], "from 1 to 64"),
        (["demo", "--rounds", "-1"], "from 1 to"),
        (["demo", "--trainer", "jax"], "jax"),
        (["demo", "--byzantine", "2"], "more than 6 peers"),
        (["demo", "--byzantine", "-1"], "from 0 to"),
        (["identity"], "--data-dir"),
        (["identity", "--data-dir", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(arguments, reason, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert reason in captured.err


def test_a_report_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*SMALL, "--report", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_identity_is_printed_for_people_and_programs(tmp_path, capsys):
    assert main(["identity", "--data-dir", str(tmp_path)]) == 0
    peer = capsys.readouterr().out.strip()
    assert peer.startswith("12D3KooW")
    assert main(["identity", "--data-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"event": "identity", "peer_id": peer}


@pytest.mark.parametrize("command", [[], ["demo"], ["identity"]])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    assert "usage: atcp" in capsys.readouterr().out
