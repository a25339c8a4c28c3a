"""Who is meant by a share, a count or a list, and who plays which part."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.manifest import MAX_MEMBERS
from sim.director.selection import adversaries_of, attacks, drawn, first_up, members_of, picked, share_of
from sim.scenario.model import Adversary, Scenario, Selection, TaskLoad, Topology


def test_a_selection_means_those_it_names_counts_or_draws() -> None:
    assert picked(Selection(nodes=(4, 1)), 10, Random(1)) == [1, 4]
    assert len(picked(Selection(share=0.25), 10, Random(1))) == 2
    assert len(picked(Selection(count=3), 10, Random(1))) == 3
    assert picked(Selection(share=1.0), 4, Random(1)) == [0, 1, 2, 3]


def test_a_share_means_one_node_at_least() -> None:
    assert share_of(10, 0.001) == 1
    assert share_of(0, 0.5) == 0
    assert share_of(10, 0.0) == 0


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 10))
def test_drawn_nodes_are_different_and_ascending(nodes: int, count: int, seed: int) -> None:
    found = drawn(range(nodes), count, Random(seed))
    assert found == sorted({*found})
    assert len(found) == min(nodes, count)


def test_a_task_has_the_members_it_asks_for_or_as_many_as_it_may() -> None:
    assert len(members_of(TaskLoad(members=4), 10, Random(1))) == 4
    assert members_of(TaskLoad(members=0), 10, Random(1)) == list(range(10))
    assert len(members_of(TaskLoad(members=0), 1000, Random(1))) == min(1000, MAX_MEMBERS)


def test_a_node_plays_one_part_and_drawn_ones_are_no_bootstrap_nodes() -> None:
    scenario = Scenario(
        name="x",
        peers=10,
        topology=Topology(kind="join", bootstrap=3),
        adversaries=(
            Adversary(role="one", who=Selection(nodes=(0, 5))),
            Adversary(role="other", who=Selection(share=0.4)),
            Adversary(role="third", who=Selection(nodes=(5, 6))),
        ),
    )
    roles = {node: part.role for node, part in adversaries_of(scenario, Random(1)).items()}
    assert roles[0] == roles[5] == "one"
    others = [node for node, role in roles.items() if role == "other"]
    assert len(others) == 4
    assert min(others) >= 3
    assert list(roles) == sorted(roles)


def test_bootstrap_nodes_are_drawn_when_there_are_no_others() -> None:
    scenario = Scenario(
        name="x",
        peers=3,
        topology=Topology(kind="join", bootstrap=3),
        adversaries=(Adversary(role="one", who=Selection(count=1)),),
    )
    assert len(adversaries_of(scenario, Random(1))) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_first_node_that_runs_is_found_from_any_place(seed: int) -> None:
    assert first_up([3, 5, 7], lambda node: node == 5, Random(seed)) == 5
    assert first_up([3, 5, 7], lambda node: False, Random(seed)) is None
    assert first_up([], lambda node: True, Random(seed)) is None


def test_adversaries_dial_whom_they_name_draw_or_who_publishes() -> None:
    adversaries = {
        5: Adversary(role="one", who=Selection(nodes=(5,)), dials=Selection(nodes=(3, 5))),
        6: Adversary(role="two", who=Selection(nodes=(6,)), dials=Selection(count=2)),
        7: Adversary(role="three", who=Selection(nodes=(7,)), dials="publishers"),
        8: Adversary(role="four", who=Selection(nodes=(8,))),
    }
    found = attacks(adversaries, [2, 1, 2], [0, 1, 2, 3], Random(1))
    assert found[5] == [3]
    assert len(found[6]) == 2
    assert all(0 <= node < 4 for node in found[6])
    assert found[7] == [2, 1]
    assert 8 not in found


def test_who_is_dialed_by_name_is_not_drawn_as_an_adversary() -> None:
    scenario = Scenario(
        name="x",
        peers=4,
        adversaries=(
            Adversary(role="one", who=Selection(share=0.75), dials=Selection(nodes=(2,))),
            Adversary(role="two", who=Selection(nodes=(0,)), dials="publishers"),
        ),
    )
    assert 2 not in adversaries_of(scenario, Random(1))
