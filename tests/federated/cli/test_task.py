from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console
from rich.table import Table

from federated.cli import main
from federated.cli.tables import list_table, size, status_table
from federated.control import open_control
from federated.directory.signed import load_task_file, sign_task, task_file
from federated.export import MODEL
from federated.invitation import parse_invitation
from p2p.data_dir import open_data_dir
from p2p.peer_id import PeerId
from tests.federated.lab import peer_number, tiny_manifest
from tests.federated.test_export import MODELS, chain_of_changes, exported, kept
from tests.processes import run_peer
from tests.support import key_number


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def created(*options: str) -> dict[str, Any]:
    """The manifest that `atcp task create` writes with these options."""
    assert main(["task", "create", "--data-dir", "me", "--out", "task.json", *options]) == 0
    manifest, signed = load_task_file(Path("task.json"))
    assert signed is not None
    return json.loads(manifest.canonical())


# create and invite


def test_a_task_is_created_from_defaults_and_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task", "create", "--data-dir", "me", "--name", "first", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    manifest, signed = load_task_file(folder / "first.json")
    with open_data_dir(folder / "me") as key:
        me = PeerId.from_public_key(key.public)
    assert signed is not None
    assert (signed.creator, manifest.peer_ids, result["task"]) == (me, (me,), manifest.task_id.hex())
    assert not manifest.is_open


def test_two_tasks_from_the_same_options_are_two_tasks(folder: Path) -> None:
    one = created()
    Path("task.json").unlink()
    assert created()["seed"] != one["seed"]


def test_options_become_the_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [str(peer_number(1)), str(peer_number(2))]
    options = ["--member", members[0], "--member", members[1], "--rounds", "5", "--seed", "3"]
    options += ["--set", "trainer.hidden=[16, 8]", "--set", "trainer.epochs=2", "--train-deadline", "9"]
    options += ["--set", "policy.quorum=0.7", "--set", "policy.max_staleness=2"]
    value = created(*options, "--trainer", "numpy-mlp", "--phase-deadline", "2.5")
    assert value["members"] == sorted(members, key=PeerId.parse)
    assert (value["rounds"], value["seed"]) == (5, 3)
    assert value["trainer"] == {"name": "numpy-mlp", "settings": {"hidden": [16, 8], "epochs": 2}}
    assert (value["policy"]["train_deadline_s"], value["policy"]["phase_deadline_s"]) == (9.0, 2.5)
    assert (value["policy"]["quorum"], value["policy"]["max_staleness"]) == (0.7, 2)
    assert "--task task.json" in capsys.readouterr().out


def test_updates_are_compressed_where_the_options_say_so(folder: Path) -> None:
    assert "compressor" not in created()
    Path("task.json").unlink()
    value = created("--compressor", "top-k", "--set", "compressor.share=0.01")
    assert value["compressor"] == {"name": "top-k", "settings": {"share": 0.01}}


def test_updates_are_private_where_the_options_say_so(folder: Path) -> None:
    assert "privacy" not in created()
    Path("task.json").unlink()
    options = ["clip=2.0", "noise=8.0", "delta=1e-5", "epsilon=10.0"]
    value = created(*(text for option in options for text in ("--set", f"privacy.{option}")))
    assert value["privacy"] == {"kind": "dp", "clip": 2.0, "noise": 8.0, "delta": 1e-5, "epsilon": 10.0}


def test_admission_by_work_and_by_invitation(folder: Path) -> None:
    value = created("--admission", "work", "--bits", "12", "--max-members", "9")
    assert (value["admission"], value["max_members"]) == ({"kind": "work", "bits": 12}, 9)
    Path("task.json").unlink()
    issuer = str(peer_number(1))
    value = created("--admission", "invitation", "--issuer", issuer)
    assert value["admission"] == {"kind": "invitation", "issuers": [issuer]}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--member", "nobody"], "members: not a peer id: 'nobody'"),
        (["--name", "a b"], "name: "),
        (["--rounds", "0"], "--rounds"),
        (["--trainer", "digits"], "plugin 'digits' is of kind preprocessor, not trainer"),
        (["--set", "trainer.depth=3"], "depth"),
        (["--set", "trainer"], "--set trainer: write it like"),
        (["--set", "privacy.clip=1.0"], "privacy.noise: Field required"),
        (["--set", "compressor.bits=8"], "--set compressor goes with --compressor"),
        (["--compressor", "zip"], "no compressor 'zip' is installed; there are: int4, int8, power-sgd"),
        (["--set", "cook.salt=1"], "--set cook.salt=1: write it like"),
        (["--bits", "20"], "--bits goes with --admission work"),
        (["--issuer", "x"], "--issuer goes with --admission invitation"),
        (["--max-members", "5"], "max_members is for tasks that admit members"),
        (["--out", "none/task.json"], "cannot write none/task.json"),
        (["--data-dir", "/dev/null/x"], "cannot use the data folder"),
    ],
)
def test_nonsense_is_one_line_and_status_2(
    options: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["task", "create", "--data-dir", "me", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("atcp: ")
    assert captured.err.count("\n") == 1
    assert line in captured.err
    assert not (folder / "task.json").exists()


def test_a_file_that_is_there_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    created()
    before = Path("task.json").read_bytes()
    assert main(["task", "create", "--data-dir", "me"]) == 2
    assert "task.json exists" in capsys.readouterr().err
    assert Path("task.json").read_bytes() == before


def test_an_invitation_is_a_line_for_the_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    created("--admission", "invitation", "--rounds", "7")
    manifest, _ = load_task_file(folder / "task.json")
    capsys.readouterr()
    assert main(["task", "invite", "task.json", "--data-dir", "me"]) == 0
    invitation = parse_invitation(capsys.readouterr().out).invitation
    assert (invitation.task, invitation.last_round) == (manifest.task_id, 7)
    assert main(["task", "invite", "task.json", "--data-dir", "me", "--last-round", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last_round"] == 3


def test_who_may_not_invite_is_told_who_may(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issuer = str(peer_number(1))
    created("--admission", "invitation", "--issuer", issuer)
    assert main(["task", "invite", "task.json", "--data-dir", "me"]) == 2
    assert f"its issuers are {issuer}" in capsys.readouterr().err
    Path("task.json").unlink()
    created()
    assert main(["task", "invite", "task.json", "--data-dir", "me"]) == 2
    assert "--admission invitation" in capsys.readouterr().err
    assert main(["task", "invite", "none.json", "--data-dir", "me"]) == 2


# verify and export


def test_verify_says_true_or_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = chain_of_changes()
    out = exported(folder, chain)
    task = chain.manifest.task_id.hex()
    assert main(["task", "verify", "out"]) == 0
    assert f"true: tiny, task {task}, round 3 of 6" in capsys.readouterr().out
    assert main(["task", "verify", "out", "--task", task, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["members"] == 3
    (out / MODEL).write_bytes(b"another")
    assert main(["task", "verify", "out"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "model.safetensors has the digest" in captured.err
    assert main(["task", "verify", "nothing"]) == 2
    assert main(["task", "verify", "out", "--task", "12"]) == 2


def test_export_reads_the_folder_when_no_peer_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept(folder / "me", chain_of_changes(), MODELS)
    assert main(["task", "export", "tiny", "model", "--data-dir", "me"]) == 0
    assert "the model of round 3" in capsys.readouterr().out
    assert main(["task", "verify", "model"]) == 0
    assert main(["task", "export", "tiny", "again", "--data-dir", "me", "--json"]) == 0
    assert main(["task", "export", "tiny", "model", "--data-dir", "me"]) == 2
    assert main(["task", "export", "tiny", "third", "--data-dir", "nowhere"]) == 2
    assert not (folder / "nowhere").exists()


# to a running peer


TASK = {
    "task": "ab" * 32,
    "name": "tiny",
    "state": "joined",
    "reason": None,
    "round": 2,
    "rounds": 6,
    "phase": {"round": 3, "phase": "commit", "seconds": 0.1, "answers": 3, "needed": 4},
    "members": {"12D3KooWa": "active", "12D3KooWb": "ejected"},
    "capabilities": {
        "12D3KooWa": {
            "steps_per_second": 12.345,
            "bytes_down": 12.5e6,
            "bytes_up": 0.0,
            "aggregate_bytes_per_second": 1.2e9,
            "memory": 8_000_000_000,
            "cores": 2,
        }
    },
    "certificate": {"digest": "cd" * 32, "view": 1, "votes": 3, "skipped": False, "round": 2, "block": "00"},
    "accuracy": 0.5,
    "loss": None,
    "seconds": 1.0,
    "refused": [{"peer": "12D3KooWbbbbbb", "rule": "norm", "count": 2}],
    "disk_bytes": 12345,
}
STARTING = {
    **TASK,
    "phase": None,
    "capabilities": {},
    "certificate": None,
    "accuracy": None,
    "disk_bytes": None,
    "reason": "why",
}
LISTED = {
    "task": "ab" * 32,
    "name": "tiny",
    "creator": "12D3KooWa",
    "rounds": 6,
    "members": 4,
    "admission": "closed",
    "round": 2,
    "state": "running",
    "joined": True,
}


async def answer(command: str, arguments: dict[str, Any]) -> Any:
    """What a peer with one task says."""
    match command:
        case "status":
            tasks = [] if arguments.get("task") == "none" else [TASK, STARTING]
            return {"peer_id": "12D3KooWa", "addrs": [], "peers": 3, "tasks": tasks}
        case "list":
            return [LISTED]
        case "metrics":
            return "atcp_rounds_total 3\n"
        case "join":
            name = "file" if "file" in arguments else "id"
            return {"task": "ab" * 32, "name": name, "state": arguments.get("invitation", "joining")}
    return {"task": "ab" * 32, "state": "left" if arguments["task"] == "tiny" else "leaving"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["status"], "12D3KooWa, connected to 3 peers"),
        (["status"], "1, 1 ejected"),
        (["status"], "norm×2"),
        (["status", "none"], "no task; join one"),
        (["status", "--json"], '"event": "status"'),
        (["metrics"], "atcp_rounds_total 3"),
        (["list"], "running 2/6, joined"),
        (["list", "--json"], '"event": "listed"'),
        (["join", "ab"], "task id, "),
        (["join", "task.json", "--invitation", "please"], "task file, " + "ab" * 32 + ": please"),
        (["join", "bare.json", "--json"], '"name": "file"'),
        (["leave", "tiny"], ": left"),
        (["leave", "other"], "not certified it yet"),
        (["leave", "tiny", "--json"], '"state": "left"'),
    ],
)
async def test_commands_reach_the_running_peer(
    command: list[str],
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    manifest = tiny_manifest(3)
    (folder / "task.json").write_text(task_file(sign_task(manifest, key_number(1))))
    (folder / "bare.json").write_bytes(manifest.canonical())
    async with open_control(folder, answer):
        arguments = ["task", *command, "--data-dir", str(folder)]
        assert await trio.to_thread.run_sync(main, arguments) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["status", "--data-dir", "me"], "no peer runs in me"),
        (["join", "none.json", "--data-dir", "me"], "cannot read task file none.json"),
        (["join", "broken.json", "--data-dir", "me"], "task file broken.json: not JSON"),
        (["list"], "--data-dir of a running peer, or --bootstrap"),
        (["list", "--bootstrap", "/ip4/127.0.0.1/tcp/1"], "write the whole address"),
        (["dance"], "invalid choice"),
    ],
)
def test_what_cannot_be_told_to_a_peer_is_one_line(
    command: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.json").write_text("x")
    assert main(["task", *command]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert line in captured.err


def test_a_network_that_is_not_there_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_number(1)}"
    assert main(["task", "list", "--bootstrap", address, "--seconds", "0.2"]) == 1
    assert "no peer answers at --bootstrap" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["create", "invite", "list", "status", "join", "leave", "export", "verify"]
)
def test_every_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["task", command, "--help"])
    assert exit_info.value.code == 0
    out = capsys.readouterr().out
    assert f"examples:\n  atcp task {command}" in out
    assert "--json" in out


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (12345, "12.3 kB"), (5 * 10**15, "5000.0 TB")]
)
def test_bytes_for_people(count: int | None, text: str) -> None:
    assert size(count) == text


def shown(table: Table) -> list[str]:
    """The lines of a table in a terminal of 80 columns."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_how_tasks_stand_fits_a_terminal() -> None:
    lines = shown(status_table([TASK, STARTING]))
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["tiny", "tiny"]
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    both = ["round", "members", "refused"]  # of the one that starts there is no more to tell
    assert named == ["round", "members", "…3KooWa", "certified", "accuracy", "refused", "disk", *both]
    assert lines[3].split(maxsplit=1)[1] == "12.3 steps/s, ↓ 12.5 MB/s, mean 1.2 GB/s, 8.0 GB, 2 cores"
    assert "joined: why" in lines[8]


def test_what_a_private_task_has_given_away_is_shown() -> None:
    spent = {"epsilon": 2.16571, "delta": 1e-5, "budget": 8.0, "updates": 3}
    [line] = [line for line in shown(status_table([{**TASK, "privacy": spent}])) if "privacy" in line]
    assert line.split(maxsplit=1)[1] == "ε 2.17 of 8, δ 1e-05, 3 updates"


def test_of_many_members_some_are_shown() -> None:
    [known] = TASK["capabilities"].values()  # type: ignore[attr-defined]
    many = {f"12D3KooW{number:06}": known for number in range(20)}
    lines = shown(status_table([{**TASK, "capabilities": many}]))
    assert sum("steps/s" in line for line in lines) == 16
    assert "4 more, see --json" in lines[19]


def test_a_task_is_listed_with_the_whole_id() -> None:
    lines = shown(list_table([LISTED, {**LISTED, "joined": False}]))
    assert len(lines) == 4
    assert "joined" in lines[0]
    assert "joined" not in lines[2]
    assert lines[1].strip() == lines[3].strip() == LISTED["task"]


# whole programs


async def test_from_a_manifest_to_a_verified_model_with_real_peers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One peer is given the file, the other finds the task by its id; both go, and the model stays."""

    async def atcp(*arguments: str) -> str:
        capsys.readouterr()
        status = await trio.to_thread.run_sync(main, ["task", *arguments])
        said = capsys.readouterr()
        assert (status, said.err) == (0, "")
        return said.out

    members = []
    for name in ("one", "two"):
        with open_data_dir(folder / name) as key:
            members += ["--member", str(PeerId.from_public_key(key.public))]
    settings = ["--set", "trainer.hidden=[8]", "--set", "trainer.epochs=1", "--rounds", "2"]
    task = json.loads(
        await atcp("create", "--data-dir", "one", "--name", "digits", *members, *settings, "--json")
    )["task"]
    async with run_peer("--data-dir", "one", "--task", "digits.json") as (one, listening):
        bootstrap = ["--bootstrap", listening["addrs"][0]]
        async with run_peer("--data-dir", "two", *bootstrap) as (two, _):
            await atcp("join", task, "--data-dir", "two")
            finished = partial(_is_state, "finished")
            await one.wait_for("task", finished)
            await two.wait_for("task", finished)
            status = json.loads(await atcp("status", "digits", "--data-dir", "two", "--json"))
            assert status["tasks"][0]["round"] == 2
            await atcp("export", "digits", "running", "--data-dir", "two")
            listed = json.loads(await atcp("list", *bootstrap, "--seconds", "25", "--json"))
            assert (listed["task"], listed["name"]) == (task, "digits")
    await atcp("export", "digits", "after", "--data-dir", "one")
    verified = [json.loads(await atcp("verify", name, "--json")) for name in ("running", "after")]
    assert verified[0] == verified[1]
    assert (verified[0]["task"], verified[0]["round"]) == (task, 2)


def _is_state(state: str, event: dict[str, Any]) -> bool:
    return event["state"] == state
