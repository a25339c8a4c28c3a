"""Updates that come a round late, and those of members that say two things: what counts, what does not."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.manifest import MAX_STALENESS
from federated.rounds.actions import Misbehaved
from federated.rounds.events import Input, Inputs, MessageReceived, Phase
from federated.rounds.inputs import inputs_root, listed_size, pack_inputs, unpack_inputs
from federated.rounds.messages import (
    MAX_COUNT,
    MAX_EXAMPLES,
    Body,
    Certificate,
    Commit,
    MessageError,
    Reveal,
    commitment,
)
from federated.rounds.past import Base, Past
from p2p.blobs.merkle import EMPTY_ROOT
from tests.federated.rounds.network import INITIAL, UPDATE_SIZE, Network, Node, bodies
from tests.federated.rounds.table import BASE, committee
from tests.federated.rounds.test_machine import skipped

MEMBERS = committee(4).members


def slow_network(max_staleness: int, rounds: int = 4, seed: int = 1) -> tuple[Network, Node]:
    """Four members, of which the others do not wait for the last: it trains when it is told to."""
    network = Network(4, seed, rounds=rounds, quorum=0.7, training=(0.1, 0.2), max_staleness=max_staleness)
    slow = network.nodes[3]
    slow.trains = False
    network.start()
    return network, slow


def in_round(network: Network, node: Node, number: int, *phases: Phase) -> None:
    """Until the member is in this round, and in one of the phases."""
    machine = node.machine
    assert machine is not None
    network.run(lambda: machine.round == number and machine.phase in (phases or Phase), network.now + 30)


def reveals(network: Network, node: Node) -> list[tuple[int, int]]:
    """(round, staleness) of what a member revealed."""
    return sorted({(body.round, body.staleness) for body in bodies(network, Reveal, node.number)})


def took_part(network: Network, node: Node) -> list[int]:
    return [
        number for number, block in sorted(network.blocks.items()) if block.participants >> node.number & 1
    ]


def test_an_update_that_is_finished_in_the_next_round_counts_there() -> None:
    network, slow = slow_network(max_staleness=1)
    in_round(network, slow, 2, Phase.TRAIN, Phase.COMMIT)
    network.train(slow, slow.life, 1)
    slow.trains = True
    network.finish(within=60.0)
    assert reveals(network, slow)[:2] == [(2, 1), (3, 0)]
    assert took_part(network, slow)[0] == 2
    assert (slow.trained[:2], slow.stopped) == ([1, 3], [])
    assert not slow.notes
    assert network.nodes[0].finished[1].late == ((slow.peer, 1),)
    assert {len(node.finished) for node in network.nodes} == {4}


def test_an_update_that_misses_its_round_by_little_is_the_first_of_the_next() -> None:
    network, slow = slow_network(max_staleness=1)
    in_round(network, network.nodes[0], 1, Phase.REVEAL, Phase.FETCH, Phase.VALIDATE, Phase.VOTE)
    in_round(network, slow, 1)
    network.train(slow, slow.life, 1)  # its commit is too late for the others
    in_round(network, slow, 2)
    assert slow.trained == [1]
    slow.trains = True
    network.finish(within=60.0)
    assert reveals(network, slow)[:2] == [(1, 0), (2, 1)]
    assert len({body.root for body in bodies(network, Reveal, slow.number) if body.round < 3}) == 1
    assert took_part(network, slow)[0] == 2


def test_without_late_updates_a_training_ends_with_its_round() -> None:
    network, slow = slow_network(max_staleness=0, rounds=2)
    network.finish(within=60.0)
    assert (slow.trained, slow.stopped) == ([1, 2], [1, 2])
    assert reveals(network, slow) == []


def test_a_training_that_no_round_waits_for_any_more_is_stopped_and_begins_anew() -> None:
    network, slow = slow_network(max_staleness=1)
    in_round(network, slow, 3)
    network.train(slow, slow.life, 1)  # two rounds late
    assert (slow.trained, slow.stopped) == ([1, 3], [1])
    network.train(slow, slow.life, 3)
    slow.trains = True
    network.finish(within=60.0)
    assert reveals(network, slow) == [(3, 0), (4, 0)]


def test_a_training_may_go_on_for_as_many_rounds_as_the_task_says_and_not_over_its_end() -> None:
    network, slow = slow_network(max_staleness=2, rounds=4)
    in_round(network, slow, 3, Phase.TRAIN, Phase.COMMIT)
    network.train(slow, slow.life, 1)
    network.finish(within=60.0)
    assert reveals(network, slow) == [(3, 2)]
    assert (slow.trained, slow.stopped) == ([1, 4], [4])


def test_a_member_that_fetches_the_model_of_its_round_offers_its_update_in_the_next() -> None:
    network, slow = slow_network(max_staleness=1)
    network.blocked = lambda node, root: node is slow and network.blocks == {}
    in_round(network, slow, 1, Phase.CERTIFIED)
    network.train(slow, slow.life, 1)
    slow.trains = True
    network.finish(within=60.0)
    assert reveals(network, slow)[0] == (2, 1)


def say_late(network: Network, node: Node, staleness: int, base: bytes) -> Reveal:
    """The member commits itself to, and reveals, an update that it says to be late."""
    assert node.machine is not None
    number, root = node.machine.round, sha256(b"late").digest()
    node.disk.blobs[root] = True
    reveal = Reveal(
        round=number, root=root, size=UPDATE_SIZE, nonce=bytes(32), examples=5, staleness=staleness
    )
    value = commitment(node.peer, network.manifest.task_id, base, reveal)
    network._publish(node, Commit(round=number, commitment=value))
    network.at(network.now + 0.1, partial(network._publish, node, reveal))
    return reveal


def test_who_took_part_in_a_round_cannot_say_afterwards_that_it_was_late() -> None:
    network, cheat = slow_network(max_staleness=2)
    in_round(network, cheat, 1, Phase.TRAIN)
    network.train(cheat, cheat.life, 1)
    in_round(network, cheat, 2, Phase.TRAIN)
    assert took_part(network, cheat) == [1]
    say_late(network, cheat, 1, INITIAL.digest)
    network.finish(within=60.0)
    assert 2 not in took_part(network, cheat)
    told = [node.finished[1].refused for node in network.nodes[:3]]
    assert told == [((cheat.peer, "staleness"),)] * 3


@pytest.mark.parametrize(("staleness", "base"), [(1, bytes(32)), (2, INITIAL.digest)])
def test_an_update_on_a_model_that_never_was_does_not_count(staleness: int, base: bytes) -> None:
    network, cheat = slow_network(max_staleness=2)
    in_round(network, cheat, 2, Phase.TRAIN, Phase.COMMIT)
    say_late(network, cheat, staleness, base)
    network.finish(within=60.0)
    assert took_part(network, cheat) == []
    rule = "commitment" if staleness == 1 else "staleness"
    for node in network.nodes[:3]:
        assert Misbehaved(round=2, peer=cheat.peer, rule=rule) in node.notes


def test_members_agree_on_late_updates_under_loss_crashes_and_slow_trainings() -> None:
    late = 0
    for seed in range(12):
        network = Network(5, seed, rounds=5, quorum=0.6, training=(0.1, 7.0), loss=0.05, max_staleness=2)
        network.start()
        victim = network.nodes[seed % 5]
        network.at(2.0 + seed % 3, partial(network.kill, victim))
        network.at(6.0, partial(network.start, victim))
        network.finish(within=200.0)
        late += sum(body.staleness > 0 for body in bodies(network, Reveal))
        assert len(network.blocks) == 5
        for number, block in network.blocks.items():
            assert block.round == number
    assert late > 10


# who says two things


@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_commits_itself_twice_costs_the_round_its_update_and_no_more(seed: int) -> None:
    network = Network(7, seed, rounds=2)
    liar = network.nodes[seed]
    twins: dict[int, Reveal] = {}

    def tamper(sender: Node, to: Node, body: Body) -> Body | None:
        if sender is not liar or not isinstance(body, Commit | Reveal) or to.number % 2:
            return body
        twin = twins.setdefault(
            body.round,
            Reveal(round=body.round, root=sha256(b"twin").digest(), size=9, nonce=bytes(32), examples=1),
        )
        liar.disk.blobs[twin.root] = True
        if isinstance(body, Reveal):
            return twin
        base = INITIAL.digest if body.round == 1 else network.certified[1]
        return Commit(
            round=body.round, commitment=commitment(liar.peer, network.manifest.task_id, base, twin)
        )

    network.tamper = tamper
    network.start()
    honest = [node for node in network.nodes if node is not liar]
    said: list[Body] = []

    def spread() -> None:
        """Gossip brings to everybody what anybody was told."""
        for _, sender, body in list(network.sent):
            if sender == liar.number and isinstance(body, Commit | Reveal) and body not in said:
                said.append(body)
                for node in honest:
                    for each in (body, tamper(liar, network.nodes[0], body)):
                        assert each is not None
                        network.tell(node, node.life, MessageReceived(sender=liar.peer, body=each))
        network.after((0.2, 0.3), spread)

    network.after((0.2, 0.3), spread)
    network.run(lambda: all(node.done for node in honest), 60.0)
    assert skipped(network) == []
    views = {body.round: body.view for body in bodies(network, Certificate)}
    assert max(views.values(), default=1) <= 4
    assert any(Misbehaved(round=1, peer=liar.peer, rule="twice") in node.notes for node in honest)


# what came before


def test_bases_are_counted_backwards_with_those_that_took_part_since() -> None:
    network = Network(4, rounds=3)
    network.start()
    network.finish(within=30.0)
    certificates = [body for node in network.nodes for body in node.disk.history][:3]
    past = Past(2)
    assert past.bases(BASE) == (Base(digest=BASE, participants=0),)
    past.add(certificates)
    blocks = [certificate.block for certificate in certificates]
    assert past.bases(BASE) == (
        Base(digest=BASE, participants=0),
        Base(digest=blocks[2].base, participants=blocks[2].participants),
        Base(digest=blocks[1].base, participants=blocks[2].participants | blocks[1].participants),
    )
    nothing = Past(0)
    nothing.add(certificates)
    assert nothing.bases(BASE) == (Base(digest=BASE, participants=0),)


# the list of the updates

MEMBERSHIP = Network(4).membership(0)


@st.composite
def listed(draw: st.DrawFn) -> Inputs:
    roots = sorted(draw(st.sets(st.binary(min_size=32, max_size=32), max_size=6)))
    return tuple(
        Input(
            peer=draw(st.sampled_from(MEMBERSHIP.members)),
            root=root,
            size=draw(st.integers(0, MAX_COUNT)),
            examples=draw(st.integers(0, MAX_EXAMPLES)),
            staleness=draw(st.integers(0, MAX_STALENESS)),
        )
        for root in roots
    )


@given(listed())
def test_a_list_of_updates_reads_back(inputs: Inputs) -> None:
    data = pack_inputs(inputs, MEMBERSHIP)
    assert len(data) == listed_size(len(inputs))
    assert unpack_inputs(data, MEMBERSHIP) == inputs


@given(listed(), st.integers(0, 400), st.integers(1, 255))
def test_a_list_with_a_flipped_byte_is_another_one_or_none(inputs: Inputs, at: int, mask: int) -> None:
    data = bytearray(pack_inputs(inputs, MEMBERSHIP))
    if not data:
        assert inputs_root(inputs, MEMBERSHIP) == EMPTY_ROOT
        return
    data[at % len(data)] ^= mask
    try:
        found = unpack_inputs(bytes(data), MEMBERSHIP)
    except MessageError:
        return
    assert found != inputs
    assert inputs_root(found, MEMBERSHIP) != inputs_root(inputs, MEMBERSHIP)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_of_updates_or_refused(data: bytes) -> None:
    try:
        found = unpack_inputs(data, MEMBERSHIP)
    except MessageError:
        return
    assert pack_inputs(found, MEMBERSHIP) == data


def test_a_list_that_is_cut_or_out_of_order_is_refused() -> None:
    rng = Random(1)
    items = tuple(
        Input(peer=MEMBERSHIP.members[n], root=root, size=1, examples=1)
        for n, root in enumerate(sorted(rng.randbytes(32) for _ in range(3)))
    )
    for bad in (items[::-1], (items[0], items[0])):
        with pytest.raises(MessageError, match="order"):
            unpack_inputs(pack_inputs(bad, MEMBERSHIP), MEMBERSHIP)
    with pytest.raises(MessageError, match="ends within one"):
        unpack_inputs(pack_inputs(items, MEMBERSHIP)[:-1], MEMBERSHIP)
