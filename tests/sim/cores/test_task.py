"""Training tasks on the rung `cores`: the results are real."""

from __future__ import annotations

from typing import Any

import pytest

from federated.codec import encode
from federated.errors import PluginError
from federated.learner import LocalLearner, LocalUpdate
from federated.plugin import PeerContext
from federated.registry import Registry
from federated.rounds.committee import Electorate, Membership
from federated.workbench import Workbench, digest, prepare
from sim.scenario.model import Adversary, Selection
from tests.sim.cores.bench import Bench, full

TASK = "digits"


def training(
    members: int, rounds: int = 2, trainer: dict[str, object] | None = None, **more: object
) -> Bench:
    task = {"members": members, "rounds": rounds, "settings": {"trainer": trainer or {}}}
    bench = Bench(members, full(members), task=[task], **more)  # type: ignore[arg-type]
    bench.run(2.0)
    for node in range(members):
        bench.rung.join_task(node, TASK)
        bench.rung.join_task(node, TASK)
    return bench


def digests(bench: Bench, number: int) -> set[bytes]:
    return {
        entry["digest"]
        for told in bench.watcher.rounds.values()
        for entry in told
        if entry["round"] == number
    }


def test_eight_members_certify_all_rounds_with_one_model_that_has_learned() -> None:
    bench = training(8, rounds=3)
    bench.run(90.0)
    watcher = bench.watcher
    assert sorted(watcher.finished) == list(range(8))
    for number in (1, 2, 3):
        assert len(digests(bench, number)) == 1
    for told in watcher.rounds.values():
        assert [entry["round"] for entry in told] == [1, 2, 3]
        assert told[-1]["measured"]["accuracy"] > 0.8
    assert not watcher.accusations
    assert not watcher.failures


def test_a_member_that_crashed_catches_up_from_its_disk() -> None:
    bench = training(5, rounds=3)
    bench.run(3.0)
    bench.rung.crash(2)
    bench.run(12.0)
    bench.rung.start(2)
    bench.run(100.0)
    assert sorted(bench.watcher.finished) == list(range(5))
    assert len(digests(bench, 3)) == 1
    assert not bench.watcher.failures
    assert not bench.watcher.accusations


def test_what_a_trainer_keeps_survives_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[str, str]] = []  # of a member: what it began with, what it kept
    train = LocalLearner.train

    def watched(learner: LocalLearner, *arguments: Any) -> LocalUpdate:
        update, state = train(learner, *arguments), arguments[4]
        assert update.state is not None
        if learner._context.peer == peer:
            kept.append((digest(encode(state)).hex(), digest(update.state).hex()))
        return update

    monkeypatch.setattr(LocalLearner, "train", watched)
    bench = training(4, rounds=3, trainer={"carry": True})
    peer = bench.rung._world.peers[2]
    while not kept:
        bench.run(0.5)
    bench.rung.crash(2)
    bench.run(1.0)
    bench.rung.start(2)
    bench.run(100.0)
    assert sorted(bench.watcher.finished) == list(range(4))
    assert not bench.watcher.failures
    assert [begun for begun, _ in kept] == [digest(encode({})).hex(), *(after for _, after in kept[:-1])]
    assert len(kept) > 1


def test_a_member_without_its_checkpoints_adopts_the_certified_model() -> None:
    bench = training(5, rounds=2)
    bench.run(6.0)
    bench.rung.crash(1, keep_disk=False)
    bench.run(40.0)
    bench.rung.start(1)
    bench.run(60.0)
    assert sorted(bench.watcher.finished) == list(range(5))
    assert not bench.watcher.failures


def test_a_disk_that_is_full_holds_its_member_up_until_there_is_room() -> None:
    bench = training(4, rounds=2)
    bench.rung.disk(3).full = True
    bench.run(8.0)
    assert bench.watcher.reasons
    bench.rung.disk(3).full = False
    bench.run(90.0)
    assert sorted(bench.watcher.finished) == list(range(4))
    assert not bench.watcher.failures


def test_an_adversary_hands_in_what_its_role_makes_of_the_update() -> None:
    flipper = Adversary(role="free-rider", who=Selection(nodes=(0,)))
    bench = training(4, rounds=1, adversaries={0: flipper})
    bench.run(60.0)
    assert sorted(bench.watcher.finished) == list(range(4))
    assert len(digests(bench, 1)) == 1
    assert not bench.watcher.failures


def test_a_task_that_cannot_run_here_is_not_taken_part_in() -> None:
    bench = Bench(2, full(2), task=[{"members": 2, "trainer": "nobody-has-it"}])
    bench.rung.join_task(0, TASK)
    bench.run(5.0)
    assert not bench.watcher.failures
    assert not bench.watcher.rounds


def test_a_trainer_that_fails_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> LocalUpdate:
        raise PluginError("it has a bug")

    monkeypatch.setattr(Workbench, "train", fail)
    bench = training(4, rounds=1)
    bench.run(60.0)
    assert "round 1 has no update of ours: it has a bug" in bench.watcher.reasons


def test_updates_are_fetched_from_others_while_a_holder_says_nothing() -> None:
    bench = training(6, rounds=2)
    bench.run(3.0)
    bench.rung.crash(5, silently=True)
    bench.run(120.0)
    assert sorted(bench.watcher.finished) == list(range(5))
    assert len(digests(bench, 2)) == 1
    assert not bench.watcher.failures


def test_updates_that_are_no_numbers_are_refused() -> None:
    bench = training(5, rounds=1, adversaries={2: Adversary(role="nan", who=Selection(nodes=(2,)))})
    bench.run(60.0)
    assert sorted(bench.watcher.finished) == list(range(5))
    assert bench.watcher.rounds[0][0]["measured"]["accuracy"] > 0.3
    assert not bench.watcher.failures


def test_a_member_of_a_network_whose_disks_fail_now_and_then_is_through_all_the_same() -> None:
    bench = training(4, rounds=2)
    for node in range(4):
        bench.rung.disk(node).error_share = 0.05
    bench.run(120.0)
    assert sorted(bench.watcher.finished) == list(range(4))
    assert not bench.watcher.failures


# committees


def first_committee(members: int, task: dict[str, object]) -> list[int]:
    """The nodes that vote in round 1."""
    bench = Bench(members, full(members), task=[{"members": members, **task}])
    world = bench.rung._world
    manifest = world.setup.tasks[TASK]
    peers = manifest.peer_ids
    made = prepare(
        manifest,
        Registry().load(manifest),
        PeerContext(peer=peers[0], members=peers, index=0, data_dir=None),
    )
    membership = Membership(manifest.task_id, peers)
    panel = Electorate(manifest.committee).panel(1, digest(made.initial), membership)
    return [world.numbers[peer] for peer in panel.committee.members]


def test_a_model_that_a_committee_of_conspirators_poisoned_is_taken_back() -> None:
    task: dict[str, object] = {"rounds": 5, "committee": 4}
    liars = first_committee(16, task)[:3]
    role = Adversary(role="conspirator", who=Selection(nodes=tuple(liars)))
    bench = Bench(16, full(16), task=[{"members": 16, **task}], adversaries=dict.fromkeys(liars, role))
    bench.run(2.0)
    for node in range(16):
        bench.rung.join_task(node, TASK)
    bench.run(120.0)
    honest = [node for node in range(16) if node not in liars]
    assert sorted(bench.watcher.finished) == honest  # the others are ejected
    told = bench.watcher.rounds[honest[0]]
    accuracy = [entry["measured"]["accuracy"] for entry in told]
    restored = [entry["round"] for entry in told if entry["measured"]["accuracy"] < 0.2]
    assert restored in ([2], [3])  # what comes after the poisoned round is the first model again
    assert accuracy[-1] > 0.6
    assert {len(digests(bench, number)) for number in range(1, 6)} == {1}
    assert not [one for one in bench.watcher.accusations if one[0] in honest and one[1] in honest]
    assert not bench.watcher.failures
