"""Plans drawn from seeds."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidInput
from p2p.yamux.wire import INITIAL_WINDOW
from sim.fuzz.faults import FAULTS, LASTING, LASTING_SECONDS, LONGEST
from sim.fuzz.plan import BEGIN, CALM, FAULTY, HEALING, LARGE, SETTLE, SLOWEST_OF_LARGE, draw_plan
from sim.scenario.library import load, names
from sim.scenario.model import AnyFault, DhtLoad, GossipLoad, Scenario, Selection


def end_of(fault: AnyFault) -> float:
    return fault.at + fault.seconds


@given(seed=st.integers(0, 10**6), peers=st.integers(3, 200))
def test_faults_have_an_end_after_which_work_goes_on_and_all_can_heal(seed: int, peers: int) -> None:
    plan = draw_plan(seed, peers=peers)
    assert plan.peers == peers
    assert plan.faults or plan.churn
    assert all(BEGIN <= fault.at <= BEGIN + FAULTY for fault in plan.faults)
    for fault in plan.faults:
        most = LASTING_SECONDS[1] if fault.kind in LASTING else LONGEST
        assert 0 < fault.seconds <= most or fault.kind == "reset"
    over = max([end_of(fault) for fault in plan.faults] + [c.start + c.seconds for c in plan.churn])
    works: list[GossipLoad | DhtLoad] = [*plan.gossip, *plan.dht]
    assert works
    assert all(work.start + work.seconds >= over + HEALING + CALM - 0.01 for work in works)
    assert plan.settle >= SETTLE
    assert Scenario.model_validate(plan.model_dump(mode="json")) == plan


@given(seed=st.integers(0, 10**6))
def test_a_seed_has_one_plan(seed: int) -> None:
    assert draw_plan(seed) == draw_plan(seed)


def test_a_plan_does_not_depend_on_the_process() -> None:
    code = "from sim.fuzz.plan import draw_plan; print(draw_plan(7).model_dump_json())"
    plans = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(path for path in sys.path if path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(plans) == 1


def test_seeds_differ_in_the_kinds_they_draw_and_together_draw_all() -> None:
    plans = [draw_plan(seed) for seed in range(100)]
    subsets = {frozenset(fault.kind for fault in plan.faults) for plan in plans}
    assert len(subsets) > 50
    assert frozenset().union(*subsets) == frozenset(FAULTS)
    assert {plan.rung for plan in plans} == {"cores", "light", "full"}
    assert any(plan.churn for plan in plans)
    assert any(plan.task for plan in plans)
    assert any(fault.seconds > LONGEST for plan in plans for fault in plan.faults)
    ties = [plan for plan in plans if plan.network.quantum_ms]
    assert ties
    assert all(plan.network.jitter == 0 and plan.network.latency.kind == "constant" for plan in ties)


def test_bootstrap_nodes_stay_for_those_who_join_through_them() -> None:
    plans = [plan for plan in map(draw_plan, range(300)) if plan.topology.kind == "join"]
    crashed = [
        node for plan in plans for fault in plan.faults if fault.kind == "crash" for node in fault.who.nodes
    ]
    assert crashed
    for plan in plans:
        assert not plan.churn
        for fault in plan.faults:
            assert fault.kind != "crash" or min(fault.who.nodes) >= plan.topology.bootstrap


def test_what_is_expected_of_a_plan_is_what_its_network_can_do() -> None:
    plans = [draw_plan(seed) for seed in range(300)]
    assert all((plan.checks.delivery == 1.0) == (plan.topology.kind != "star") for plan in plans)
    heavy = [plan for plan in plans if plan.gossip and plan.gossip[0].size > LARGE]
    assert {plan.rung for plan in heavy} == {"cores", "light", "full"}
    assert all(plan.gossip[0].rate * plan.gossip[0].size == pytest.approx(LARGE) for plan in heavy)
    limits = [limit for plan in heavy for limit in (plan.network.link_mbit, plan.network.up_mbit) if limit]
    assert min(limits) >= SLOWEST_OF_LARGE
    assert any(plan.gossip[0].size > INITIAL_WINDOW for plan in heavy if plan.rung == "full")


def test_a_description_says_what_was_drawn() -> None:
    plan = draw_plan(3)
    assert plan.description.startswith("Drawn for seed 3: ")
    assert all(fault.kind in plan.description for fault in plan.faults)
    assert plan.name == "fuzz-seed-3"


@pytest.mark.parametrize("name", names())
def test_a_plan_of_a_scenario_keeps_its_work_and_adds_faults(name: str) -> None:
    base = load(name)
    for seed in range(5):
        plan = draw_plan(seed, base)
        assert plan.name == f"{name}-seed-{seed}"
        assert (plan.peers, plan.rung, plan.topology) == (base.peers, base.rung, base.topology)
        assert (plan.task, plan.checks, plan.adversaries) == (base.task, base.checks, base.adversaries)
        assert [work.rate for work in plan.gossip] == [work.rate for work in base.gossip]
        assert len(plan.faults) + len(plan.churn) > len(base.faults) + len(base.churn)
    assert draw_plan(1, base, peers=30).peers == 30


def test_a_scenario_that_makes_no_sense_with_so_many_peers_is_refused() -> None:
    base = Scenario(
        name="far",
        peers=10,
        adversaries=({"role": "dropper", "who": Selection(nodes=(9,))},),  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidInput):
        draw_plan(1, base, peers=5)
