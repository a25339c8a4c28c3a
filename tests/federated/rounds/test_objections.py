"""Members that find a model worse on data of their own: what a round comes to, and how soon."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.manifest import MAX_COMMITTEE
from federated.rounds.actions import Aggregate
from federated.rounds.events import AggregateFailed, Event
from tests.federated.rounds.network import Network, Node
from tests.federated.rounds.test_agreement import NULLIFY, Four, choices, propose

ROUNDS = 6
DEADLINE = 2.0  # seconds of a phase, as of `Network`
LONGEST = 1.0  # seconds of a training, as of `Network`
Objects = Callable[[int, int], bool]  # (number of the member, round)


def network(
    count: int, objects: Objects, seed: int = 0, *, rise: float | None = 0.2, **changes: float
) -> Network:
    made = Network(count, seed, rounds=ROUNDS, max_loss_rise=rise, **changes)  # type: ignore[arg-type]

    def aggregate(node: Node, action: Aggregate) -> Event:
        if objects(node.number, action.round):
            return AggregateFailed(round=action.round, inputs=action.inputs)
        return made.add_up(node, action)

    made.aggregate = aggregate
    made.start()
    return made


def only(*numbers: int) -> Objects:
    return lambda number, _: number in numbers


@pytest.mark.parametrize(
    ("count", "against", "is_skipped"),
    [
        (4, (), False),
        (4, (0,), False),
        (4, (0, 1), True),  # neither the model nor a skip has a quorum
        (4, (0, 1, 2), True),
        (4, (0, 1, 2, 3), True),
        (7, (2, 5), False),
        (7, (0, 1, 2), True),
        (7, (0, 1, 2, 3), True),
        (7, (0, 1, 2, 3, 4), True),
        (3, (1,), False),
        (3, (0, 1), True),
        (2, (0,), True),
        (1, (0,), True),
    ],
)
def test_a_model_is_certified_if_a_quorum_finds_it_no_worse(
    count: int, against: Collection[int], is_skipped: bool
) -> None:
    made = network(count, only(*against))
    made.finish(within=ROUNDS * (LONGEST + DEADLINE))  # nobody waits for a deadline but where few members are
    assert [bool(block.skipped) for _, block in sorted(made.blocks.items())] == [is_skipped] * ROUNDS
    assert {len(node.finished) for node in made.nodes} == {ROUNDS}
    assert not [note for node in made.nodes for note in node.notes]  # nobody is blamed for its data


def test_who_objects_follows_the_certificate_of_the_others() -> None:
    made = network(4, only(3))
    made.finish(within=60.0)
    assert [event.catch_up for event in made.nodes[3].finished] == [True] * ROUNDS
    assert [event.catch_up for event in made.nodes[0].finished] == [False] * ROUNDS
    assert len({node.base.digest for node in made.nodes}) == 1


def test_without_the_policy_a_skip_waits_for_every_member_to_have_led() -> None:
    made = network(4, only(0, 1), rise=None)
    with pytest.raises(AssertionError, match="not done by"):
        made.finish(within=ROUNDS * (LONGEST + DEADLINE))


def test_a_round_of_which_a_part_is_lost_is_not_given_up_for_it() -> None:
    made = network(4, only(), seed=3, loss=0.3)
    made.finish(within=600.0)
    assert not any(block.skipped for block in made.blocks.values())


@settings(max_examples=25)
@given(st.integers(0, 1 << 32), st.integers(1, 7), st.data())
def test_members_that_object_as_they_like_hold_up_nothing(seed: int, count: int, data: st.DataObject) -> None:
    sets = st.frozensets(st.integers(0, count - 1))
    against = [data.draw(sets) for _ in range(ROUNDS + 1)]
    loss = data.draw(st.sampled_from([0.0, 0.2]))
    seats = data.draw(st.sampled_from([4, MAX_COMMITTEE]))
    made = network(count, lambda member, number: member in against[number], seed, loss=loss, committee=seats)
    if loss == 0.0 and data.draw(st.booleans()):
        made.after((0.0, 5.0), lambda: made.kill(made.nodes[-1]))
        made.after((6.0, 9.0), lambda: made.start(made.nodes[-1]))
    made.finish(within=3600.0)
    quorum = (count + (count - 1) // 3) // 2 + 1
    for number, block in made.blocks.items():
        if count <= seats and count - len(against[number]) < quorum:
            assert block.skipped


def test_a_view_that_is_left_ends_when_the_others_leave_it() -> None:
    four = Four()
    assert four.machine.leave_view(0.0) == []
    four.machine.start(0.0)
    four.proposal(propose(1))
    assert choices(four.machine.leave_view(0.0)) == [(1, NULLIFY)]
    assert choices(four.machine.leave_view(0.1)) == []
