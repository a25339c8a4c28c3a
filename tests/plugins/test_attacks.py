"""The attack table, small: the tasks are those of the rules, and the rules make the difference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from federated.errors import AggregationError
from federated.registry import Registry
from federated.workbench import Workbench
from p2p.peer_id import PeerId
from plugins.aggregation.fltrust import read_root
from plugins.aggregation.root_training import RootSet, root_delta
from sim.adversaries.league import League, flat
from sim.adversaries.poisoning import Scene, length
from tests.benchmarks.attacks import __main__ as program
from tests.benchmarks.attacks import simulator, task, workbench
from tests.benchmarks.attacks.liar import read_orders, write_orders
from tests.benchmarks.attacks.sockets import Network
from tests.benchmarks.attacks.tailored import COSINE, tailored
from tests.benchmarks.attacks.task import MODELS, RULES, Case, liars, manifest, root_rows, whole
from tests.federated.samples import members, peer

SMALL = Case("FLTrust", "sign", 1, clients=7, byzantine=2, rounds=3)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_makes_a_model(rule: str) -> None:
    found = workbench.run(Case(rule, "ipm", 1, model="softmax", clients=9, byzantine=2, rounds=1))
    assert len(found) == 1
    assert 5 < found[0] < 95


def test_only_the_rule_decides_what_an_attack_comes_to() -> None:
    withstood, given_in = (workbench.run(SMALL._replace(rule=rule)) for rule in ("FLTrust", "mean"))
    assert withstood[-1] > 60
    assert given_in[-1] < 30


def test_without_an_attack_nobody_lies() -> None:
    assert liars(SMALL._replace(attack="none")) == []
    lying = liars(SMALL)
    assert len(lying) == 2
    assert lying == liars(SMALL._replace(rule="mean", attack="gauss")) == sorted(set(lying))


def test_the_simulator_comes_to_the_same_picture() -> None:
    withstood, given_in = (simulator.run(SMALL._replace(rule=rule)) for rule in ("FLTrust", "mean"))
    assert len(withstood) == SMALL.rounds
    assert withstood[-1] > 60
    assert given_in[-1] < 30


def test_the_simulated_task_is_the_same_but_for_its_members() -> None:
    scenario = simulator.scenario(SMALL)
    ours = manifest(SMALL, members(7))
    [load] = scenario.task
    for role in ("preprocessor", "aggregator", "validator"):
        ref = getattr(ours, role)
        assert (getattr(load, role), load.settings[role]) == (ref.name, ref.settings)
    assert load.settings["trainer"].items() >= ours.trainer.settings.items()
    trainers = [
        Registry().create("trainer", ref)
        for ref in (ours.trainer, ours.trainer.model_copy(update={"settings": load.settings["trainer"]}))
    ]
    assert vars(trainers[0]) == vars(trainers[1])
    assert [number for part in scenario.adversaries for number in part.who.nodes] == liars(SMALL)
    assert not simulator.scenario(SMALL._replace(attack="none")).adversaries


def test_the_root_set_is_a_few_of_each_class_out_of_the_training_part() -> None:
    x, y = task.root_set(SMALL)
    assert np.bincount(y).tolist() == [5] * 10
    trained = {bytes(row) for row in whole("digits", 1).train[0]}
    assert {bytes(row) for row in x} <= trained
    root = read_root(task.packed_root(SMALL))
    assert (root.x == x).all()
    assert (root.y == y).all()
    with pytest.raises(ValueError, match="51 examples cannot be as many of each of 10"):
        root_rows(whole("digits", 1).train[1], 51, 1)


def test_beside_the_members_stand_one_machine_with_everything_and_one_with_the_root_set() -> None:
    found = task.alone(SMALL._replace(rounds=5))
    assert found["all data"] > 90 > found["root set"] > 60


def test_a_tailored_delta_is_trusted_and_undoes_what_the_honest_learn_beyond_the_root_set() -> None:
    x, y = task.root_set(SMALL)
    base = Registry().create("trainer", MODELS["softmax"]).init(1)
    honest = np.random.default_rng(1).standard_normal((3, 650))
    scene = Scene(base=base, own=honest[0], honest=lambda: honest, members=4, noise=np.random.RandomState(1))
    trusted = RootSet(x.astype(np.float64), y)
    root = flat(root_delta(base, trusted, steps=15, lr=0.1, momentum=0.9, clip=1.0))
    found = tailored(trusted).lie(scene)
    along = root / length(root)
    assert found @ along / length(found) == pytest.approx(COSINE, abs=0.01)
    units = honest / np.linalg.norm(honest, axis=1, keepdims=True)
    learnt = np.maximum(units @ along, 0) @ units
    across = found - (found @ along) * along
    beyond = learnt - (learnt @ along) * along
    assert across @ beyond == pytest.approx(-length(across) * length(beyond), rel=0.01)


def test_a_round_that_the_rule_refuses_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AggregationError("no")

    ours = manifest(SMALL, members(7))
    benches = workbench.open_benches(ours, SMALL)
    monkeypatch.setattr(Workbench, "aggregate", refuse)
    assert workbench.one_round(ours, benches, benches[0].initial, 1) == benches[0].initial


def test_a_liar_of_its_own_process_has_its_orders(tmp_path: Path) -> None:
    write_orders(tmp_path, SMALL, [peer(1), peer(2)])
    case, league = read_orders(tmp_path)
    assert case == SMALL
    assert isinstance(league, League)
    assert league.liars == (peer(1), peer(2))


def test_each_member_has_its_folder_and_the_liars_know_one_another(tmp_path: Path) -> None:
    network = Network(SMALL, tmp_path)
    assert network.ledger.total_rounds == SMALL.rounds
    orders = sorted(tmp_path.glob("peer-*/attack.json"))
    assert len(list(tmp_path.glob("peer-*"))) == 7
    _, league = read_orders(orders[0].parent)
    assert len(orders) == len(league.liars) == 2
    assert all(isinstance(liar, PeerId) for liar in league.liars)


def test_it_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "attacks.json", tmp_path / "attacks.png"
    options = ["mean", "--attack", "none", "sign", "--model", "mlp", "softmax", "--clients", "4"]
    options += [
        "--byzantine",
        "1",
        "--rounds",
        "2",
        "--seeds",
        "2",
        "--json",
        str(file),
        "--plot",
        str(picture),
    ]
    assert program.main(options) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [(row["model"], row["attack"]) for row in found["rows"]] == [
        (model, attack) for model in ("mlp", "softmax") for attack in ("none", "sign")
    ]
    for row in found["rows"]:
        assert row["lowest"] <= row["accuracy"] <= row["highest"]
        assert len(row["rounds"]) == len(row["seeds"]) == 2
        assert row["rounds"][-1] == pytest.approx(row["accuracy"])
    assert set(found["controls"]) == {"digits, mlp", "digits, softmax"}
    assert picture.stat().st_size > 1000
    assert "root set alone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["medium"], "no rule 'medium'; there are: mean, median"),
        (["--where", "sim", "--attack", "tailored"], "no adversary of the simulator knows a root set"),
    ],
)
def test_what_cannot_be_asked_is_said(
    options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(options)
    assert line in capsys.readouterr().err
