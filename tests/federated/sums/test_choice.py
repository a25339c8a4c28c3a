"""The choice robust, private or grouped: in a manifest, on the command line, and in what people see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from federated.cli import main
from federated.cli.tables import status_table
from federated.errors import ManifestError
from federated.manifest import SecureSums, TaskManifest, holder_faults, parse_manifest
from federated.standing import Standing
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.cli.test_task import TASK, shown
from tests.federated.lab import tiny_manifest

WITH_SECP256K1 = KeyPair.decode(
    bytes.fromhex("0802122053dadf1d5a164d6b4acdb15e24aa4c5b1d3461bdbd42abedb0a4404d56ced8fb")
)  # libp2p's specification of peer ids, "Test vectors"


def summed(count: int = 9, **changes: Any) -> dict[str, Any]:
    """The JSON of a task with secure sums."""
    value = tiny_manifest(count).model_dump(mode="json")
    policy = value["policy"] | changes.pop("policy", {})
    return value | {"sums": {"range": 1.0}, "policy": policy} | changes


def parsed(value: dict[str, Any]) -> TaskManifest:
    return parse_manifest(json.dumps(value).encode())


def test_a_task_without_sums_has_the_id_that_it_always_had() -> None:
    plain = tiny_manifest(9)
    assert b"sums" not in plain.canonical()
    found = [
        parsed(summed()),
        parsed(summed(sums={"range": 2.0})),
        parsed(summed(sums={"range": 1.0, "group": 4})),
    ]
    assert all(parse_manifest(task.canonical()) == task for task in found)
    assert len({task.task_id for task in (plain, *found)}) == 4


def test_a_mode_is_chosen_by_the_size_of_the_groups() -> None:
    assert SecureSums(range=1.0).mode == "private"
    assert SecureSums(range=1.0, group=4).mode == "grouped"
    assert Standing(tiny_manifest(9)).summary()["mode"] == "robust"
    assert (SecureSums(range=1.0).most_sums(20), SecureSums(range=1.0, group=6).most_sums(20)) == (1, 3)
    assert [holder_faults(count) for count in (4, 5, 8, 9, 21)] == [0, 1, 1, 2, 5]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"compressor": {"name": "int8"}}, "sums do not go with a compressor: what is compressed cannot"),
        ({"policy": {"max_staleness": 1}}, "sums do not go with max_staleness: a late update is in no sum"),
        ({"policy": {"quality_every": 2}}, "sums do not go with quality_every: nobody sees what one update"),
        ({"admission": {"kind": "work", "bits": 9}}, "sums do not go with admission by work: who has more"),
        ({"committee": 8}, "sums do not go with a committee: all members vote, at most 64 (see max_members)"),
        ({"rounds": 7}, "sums do not go with rounds that are no multiple of 3: a sum takes as many"),
        (
            {"policy": {"quorum": 0.6}},
            "sums do not go with a quorum without 3 members: 2 holders may be miss",
        ),
        ({"sums": {"range": 1.0, "group": 3}}, "sums do not go with groups of 3: 2 bad members leave fewer"),
        ({"sums": {"range": 1.0, "group": 5}}, "sums do not go with groups of 5: 9 members make no two"),
        ({"sums": {"range": 0.0}}, "sums.range: "),
        ({"sums": {"range": 1.0, "holders": 4}}, "sums.holders: "),
        ({"sums": {"range": 1.0, "holders": 22}}, "sums.holders: "),
        ({"sums": {"range": 1.0, "group": 2}}, "sums.group: "),
        ({"sums": {}}, "sums.range: Field required"),
        ({"sums": {"range": 1.0, "mode": "robust"}}, "sums.mode: "),
    ],
)
def test_what_needs_an_update_by_itself_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parsed(summed(**changes))
    assert str(caught.value).startswith(line)


def test_too_few_members_and_members_that_cannot_hold_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"^sums do not go with fewer than 5 members$"):
        parsed(summed(4))
    stranger = str(PeerId.from_public_key(WITH_SECP256K1.public))
    value = summed()
    with pytest.raises(
        ManifestError, match=f"^{stranger} cannot hold shares: its id does not contain an Ed25519"
    ):
        parsed(value | {"members": [*value["members"], stranger]})


def test_a_quorum_may_leave_out_as_many_as_may_be_bad() -> None:
    assert parsed(summed(policy={"quorum": 0.75})).sums is not None


def test_sums_are_chosen_by_the_options_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    members = [text for member in summed()["members"] for text in ("--member", member)]
    options = ["--set", "sums.range=0.5", "--set", "sums.group=4", "--rounds", "6"]
    assert main(["task", "create", "--data-dir", "me", *members, *options]) == 0
    created = json.loads(Path("task.json").read_text())["manifest"]
    assert created["sums"] == {"range": 0.5, "holders": 9, "group": 4}
    assert main(["run", "--rounds", "10", "--set", "sums.range=1.0"]) == 2
    assert "sums do not go with rounds that are no multiple of 3" in capsys.readouterr().err


def test_a_task_of_sums_runs_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--peers", "6", "--rounds", "3", "--aggregator", "median"]
    assert main(["run", *options, "--set", "sums.range=1.0", "--set", "sums.group=3", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result, history = lines[-1], lines[-1]["history"]
    assert result["digests_agree"]
    assert history[0]["accuracy"] == history[1]["accuracy"] < history[2]["accuracy"]
    [told] = {json.dumps(line["sums"]) for line in lines if line["event"] == "round" and line["round"] == 3}
    assert (json.loads(told)["result"], json.loads(told)["groups"]) == ("opened", 2)


def test_what_the_last_round_was_for_is_shown() -> None:
    step = {"mode": "grouped", "step": "open", "result": "opened", "holders": 9, "dealings": 12}
    step |= {"summed": 11, "groups": 2, "wrong": ["a"]}
    lines = shown(status_table([{**TASK, "mode": "grouped", "sums": step}]))
    at = next(number for number, line in enumerate(lines) if line.strip().startswith("sums"))
    told = " ".join(" ".join(lines[at : at + 2]).split())
    assert told.startswith(
        "sums grouped, open: opened, 12 dealings, 11 summed up, 2 groups, 9 holders, 1 wrong"
    )
    lines = shown(status_table([{**TASK, "mode": "private", "sums": step | {"mode": "private"}}]))
    assert "groups" not in " ".join(lines)
    for mode, rows in (("robust", []), ("private", ["sums private"])):
        plain = shown(status_table([{**TASK, "mode": mode, "sums": None}]))
        found = [" ".join(line.split()) for line in plain if line.strip().startswith("sums")]
        assert found == rows
