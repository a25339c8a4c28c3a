"""Members come, leave and are ejected while a task goes on: whole machines, and one told by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any

import pytest

from federated.manifest import MAX_COMMITTEE
from federated.rounds.actions import (
    Checkpoint,
    Ejected,
    FetchHistory,
    MembershipChanged,
    Misbehaved,
    Publish,
    TaskLeft,
    WriteJournal,
)
from federated.rounds.catching_up import FETCHED
from federated.rounds.chain import BATCH, Links, genesis
from federated.rounds.changes import evidence_of
from federated.rounds.committee import Electorate, Membership
from federated.rounds.events import (
    HistoryFailed,
    HistoryFetched,
    LeaveWanted,
    MessageReceived,
    ModelAdopted,
    Phase,
    Started,
)
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import (
    Accuse,
    Body,
    Certificate,
    ChangeKind,
    Choice,
    Hello,
    Join,
    Leave,
    Propose,
    Recall,
    Vote,
    vote_bytes,
)
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from tests.federated.rounds.network import INITIAL, Disk, Network, Node, bodies, sign, verify
from tests.federated.rounds.test_changes import OpenDoor, credential, ejection
from tests.federated.rounds.test_machine import Solo, actions_of, certified, skipped, until_phase
from tests.federated.samples import peer

NEWCOMER = peer(60)


def equivocates(network: Network, liar: Node) -> None:
    """From now on `liar` tells members with an odd number that it voted for another block."""

    def tamper(sender: Node, to: Node, body: Body) -> Body | None:
        if (
            sender is not liar
            or not isinstance(body, Vote)
            or body.choice is Choice.NULLIFY
            or not to.number % 2
        ):
            return body
        block = sha256(b"another" + body.block).digest()
        data = vote_bytes(network.manifest.task_id, body.round, body.view, body.choice, block)
        return replace(body, block=block, signature=sign(sender.peer, data))

    network.tamper = tamper


def changes_of(network: Network) -> list[tuple[int, ChangeKind, PeerId]]:
    return [
        (number, change.kind, change.peer)
        for number, block in sorted(network.blocks.items())
        for change in block.changes
    ]


def hashes(node: Node) -> list[bytes]:
    """The blocks in a peer's chain; the voters who signed them may be others than elsewhere."""
    return [item.block.hash for item in node.disk.history]


def vote(network: Network, node: Node, label: int, choice: Choice = Choice.NOTARIZE) -> Vote:
    block = sha256(bytes([label])).digest()
    signature = sign(node.peer, vote_bytes(network.manifest.task_id, 1, 1, choice, block))
    return Vote(round=1, view=1, choice=choice, block=block, signature=signature)


# ejection


@pytest.mark.parametrize(("count", "committee"), [(4, MAX_COMMITTEE), (7, MAX_COMMITTEE), (10, 4)])
def test_who_tells_one_half_this_and_the_other_half_that_is_ejected_with_evidence(
    count: int, committee: int
) -> None:
    for seed in range(4):
        network = Network(count, seed, rounds=6, committee=committee)
        liar = network.nodes[2]
        equivocates(network, liar)
        network.start()
        honest = [node for node in network.nodes if node is not liar]
        network.run(lambda honest=honest: all(node.done for node in honest), limit=200.0)
        assert not skipped(network)
        [(number, kind, who)] = changes_of(network)
        assert (kind, who) == (ChangeKind.EJECT, liar.peer)
        proof = network.blocks[number].changes[0].proof
        for node in honest:
            assert Ejected(round=number, peer=liar.peer, evidence=proof) in node.notes
            assert all((liar.peer in item.participants) <= (item.round <= number) for item in node.finished)
        accused = bodies(network, Accuse)
        assert {body.evidence.peer for body in accused} == {liar.peer}
        assert len(accused) <= count  # each one says so once


def test_an_ejected_member_hears_of_it_and_does_nothing_any_more() -> None:
    network = Network(4, rounds=4)
    liar = network.nodes[2]
    equivocates(network, liar)
    network.start()
    network.run(lambda: liar.done, limit=60.0)
    [left] = [note for note in liar.notes if isinstance(note, TaskLeft)]
    assert left == TaskLeft(round=changes_of(network)[0][0], ejected=True)
    machine = liar.machine
    assert machine is not None
    assert (machine.phase, machine.next_deadline()) == (Phase.LEFT, None)
    hello = MessageReceived(sender=network.nodes[0].peer, body=Hello(round=1, base=INITIAL.digest))
    assert machine.handle(hello, network.now) == []
    network.kill(liar)
    with pytest.raises(InvalidInput, match="not a member"):
        network.start(liar)


def test_a_leader_that_signs_two_blocks_is_ejected_though_the_round_goes_on() -> None:
    network = Network(4, rounds=6)
    leader = network.nodes[1]

    def tamper(sender: Node, to: Node, body: Body) -> Body | None:
        if sender is not leader or to.number % 2 or not isinstance(body, Propose | Vote):
            return body
        if isinstance(body, Propose):
            return replace(body, block=replace(body.block, examples=body.block.examples + 1))
        if body.choice is not Choice.NOTARIZE:
            return body
        proposed = [item for item in bodies(network, Propose, leader.number) if item.block.hash == body.block]
        if not proposed:
            return body
        block = replace(proposed[0].block, examples=proposed[0].block.examples + 1).hash
        data = vote_bytes(network.manifest.task_id, body.round, body.view, body.choice, block)
        late = MessageReceived(sender=sender.peer, body=body)  # gossip hands on what the others were told
        network.after((0.1, 0.2), partial(network.tell, to, to.life, late))
        return replace(body, block=block, signature=sign(sender.peer, data))

    network.tamper = tamper
    network.start()
    honest = [node for node in network.nodes if node is not leader]
    network.run(lambda: all(node.done for node in honest), limit=200.0)
    assert [(kind, who) for _, kind, who in changes_of(network)] == [(ChangeKind.EJECT, leader.peer)]


def test_evidence_outlives_the_round_and_a_crash_of_the_only_one_who_has_it() -> None:
    network = Network(4, rounds=5, training=(0.3, 0.5))
    witness, liar = network.nodes[0], network.nodes[2]
    network.tamper = lambda sender, to, body: None if isinstance(body, Accuse) else body
    network.start()
    until_phase(network, witness, Phase.TRAIN, 1)
    for label in (1, 2):
        network.tell(witness, 1, MessageReceived(sender=liar.peer, body=vote(network, liar, label)))
    network.kill(witness)
    network.run_for(0.5)
    network.start(witness)
    network.finish(within=100.0)
    ejected = [who for _, kind, who in changes_of(network) if kind is ChangeKind.EJECT]
    assert ejected in ([liar.peer], [])
    leads = [body.round for body in bodies(network, Propose, witness.number) if body.block.changes]
    assert bool(leads) == bool(ejected)
    for node in network.nodes[1:2]:
        assert not [entry for entry in node.disk.journal if isinstance(entry, Accuse)]
    kept = [entry for entry in witness.disk.journal if isinstance(entry, Accuse)]
    assert [entry.evidence.peer for entry in kept] == [liar.peer]


@pytest.mark.parametrize("count", [3, 4])
def test_members_killed_anywhere_while_one_is_ejected_come_back_to_the_same_members(count: int) -> None:
    for operation in range(1, 26, 3):
        network = Network(count, operation, rounds=4)
        liar, victim = network.nodes[-1], network.nodes[0]
        equivocates(network, liar)
        victim.kill_after = operation
        network.start()
        network.run(lambda victim=victim: victim.machine is None or victim.done, limit=60.0)
        if victim.machine is None:
            network.after((0.2, 1.0), partial(network.start, victim))
        honest = network.nodes[:-1]
        network.run(lambda honest=honest: all(node.done and node.machine for node in honest), limit=200.0)
        assert [who for _, _, who in changes_of(network)] in ([liar.peer], [])
        assert {len(node.disk.history) for node in honest} == {4}


def test_nobody_is_ejected_by_forged_evidence() -> None:
    network = Network(4, rounds=2)
    liar, victim = network.nodes[1], network.nodes[3]
    task = network.manifest.task_id
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 1)
    true = evidence_of(liar.peer, vote(network, liar, 1), vote(network, liar, 2))
    forged = Accuse(evidence=replace(true, peer=victim.peer))
    for node in network.nodes[:1] + network.nodes[2:]:
        network.tell(node, 1, MessageReceived(sender=liar.peer, body=forged))
        assert Misbehaved(round=1, peer=liar.peer, rule="evidence") in node.notes
    change, proof = ejection(victim.peer)  # of another task

    def tamper(sender: Node, to: Node, body: Body) -> Body | None:
        if sender is not liar or not isinstance(body, Propose):
            return body
        return replace(body, block=replace(body.block, changes=(change,)), proofs=(proof,))

    network.tamper = tamper
    network.finish(within=60.0)
    assert task != sha256(b"task").digest()
    assert changes_of(network) == []


# leaving


@pytest.mark.parametrize(("count", "committee"), [(4, MAX_COMMITTEE), (10, 4)])
def test_a_member_that_leaves_is_let_go_and_the_others_go_on(count: int, committee: int) -> None:
    network = Network(count, rounds=6, committee=committee)
    leaver = network.nodes[2]
    network.start()
    until_phase(network, leaver, Phase.TRAIN, 2)
    network.tell(leaver, leaver.life, LeaveWanted())
    network.tell(leaver, leaver.life, LeaveWanted())
    network.finish(within=100.0)
    [(number, kind, who)] = changes_of(network)
    assert (kind, who) == (ChangeKind.LEAVE, leaver.peer)
    assert number <= 3
    assert TaskLeft(round=number, ejected=False) in leaver.notes
    others = [node for node in network.nodes if node is not leaver]
    assert all(len(node.disk.history) == 6 for node in others)
    assert all(leaver.peer not in item.participants for item in others[0].finished[number:])
    assert not skipped(network)


def test_a_member_that_is_to_leave_says_so_again_after_a_restart() -> None:
    network = Network(4, rounds=6)
    leaver = network.nodes[2]
    network.tamper = lambda sender, to, body: None if isinstance(body, Leave) and network.now < 5.0 else body
    network.start()
    until_phase(network, leaver, Phase.TRAIN, 2)
    network.tell(leaver, leaver.life, LeaveWanted())
    network.run_for(0.1)
    network.kill(leaver)
    network.run_for(0.5)
    network.start(leaver)
    network.finish(within=100.0)
    assert [who for _, _, who in changes_of(network)] in ([leaver.peer], [])
    assert len(bodies(network, Leave)) >= 2


def test_the_last_member_and_one_whose_task_is_over_just_go() -> None:
    alone = Solo(1)
    alone.start()
    actions = alone.machine.handle(LeaveWanted(), 0.1)
    assert actions[-1] == TaskLeft(round=0, ejected=False)
    assert alone.machine.handle(LeaveWanted(), 0.2) == []
    over = Solo()
    over.start(certificate=certified(3, 3)[-1])
    assert actions_of(over.machine.handle(LeaveWanted(), 0.1), TaskLeft) == [TaskLeft(round=3, ejected=False)]


def test_a_departure_that_is_not_signed_is_refused() -> None:
    solo = Solo()
    solo.start()
    sender = solo.network.nodes[1].peer
    actions = solo.hear(1, Leave(round=1, signature=bytes(64)))
    assert actions == [Misbehaved(round=1, peer=sender, rule="signature")]


# joining


@pytest.mark.parametrize(("count", "committee"), [(1, MAX_COMMITTEE), (4, MAX_COMMITTEE), (10, 4)])
def test_who_joins_takes_part_two_rounds_later_and_everybody_has_the_same_members(
    count: int, committee: int
) -> None:
    network = Network(count, rounds=8, committee=committee)
    network.admission = OpenDoor()
    network.start()
    until_phase(network, network.nodes[0], Phase.TRAIN, 3)
    node = network.ask(NEWCOMER, credential(NEWCOMER, 1))
    network.run(lambda: all(item.done for item in network.nodes), limit=200.0)
    [(number, kind, who)] = changes_of(network)
    assert (kind, who) == (ChangeKind.JOIN, NEWCOMER)
    last = [item.participants for item in network.nodes[0].finished if item.round >= number + 2]
    assert last
    assert all(NEWCOMER in participants for participants in last)
    assert node.finished[-1].round == 8
    assert network.membership(8).number(NEWCOMER) == count
    assert {len(item.disk.history) for item in network.nodes} == {8}


def test_who_joined_is_waited_for_votes_and_comes_back_after_a_crash() -> None:
    network = Network(3, rounds=10)
    network.admission = OpenDoor()
    network.start()
    node = network.ask(NEWCOMER, credential(NEWCOMER, 1))
    network.run(lambda: len(node.finished) >= 2, limit=100.0)
    assert bodies(network, Vote, node.number)
    network.kill(node)
    network.run_for(1.0)
    network.start(node)
    network.run(lambda: all(item.done for item in network.nodes), limit=200.0)
    assert hashes(node) == hashes(network.nodes[0])


def test_of_those_that_use_one_invitation_one_gets_in() -> None:
    network = Network(4, rounds=5)
    network.admission = OpenDoor()
    network.start()
    others = [peer(number) for number in (60, 61)]
    for who in others:
        network.ask(who, credential(who, 1))
    members = network.nodes[:4]
    network.run(lambda: all(node.done for node in members), limit=100.0)
    assert len(changes_of(network)) == 1
    members[0].notes.clear()


def test_without_admission_nobody_joins() -> None:
    network = Network(2, rounds=3)
    network.start()
    network.ask(NEWCOMER, credential(NEWCOMER, 1))
    members = network.nodes[:2]
    network.run(lambda: all(node.done for node in members), limit=100.0)
    assert changes_of(network) == []


def test_members_come_and_go_and_lie_under_faults_and_all_that_are_left_agree() -> None:
    for seed in range(8):
        rng = Random(seed)
        network = Network(7, seed, rounds=10, loss=rng.choice([0.0, 0.1]), duplicates=0.2)
        network.admission = OpenDoor()
        liar, leaver, crasher = rng.sample(network.nodes, 3)
        equivocates(network, liar)
        network.start()
        network.at(rng.uniform(1.0, 8.0), partial(network.tell, leaver, 1, LeaveWanted()))
        for label in range(3):
            who = peer(60 + label)
            network.at(rng.uniform(0.5, 6.0), partial(network.ask, who, credential(who, label)))
        crasher.kill_after = rng.randrange(40)
        network.at(12.0, partial(network.start, crasher))

        def is_over(network: Network = network, liar: Node = liar) -> bool:
            if network.now < 12.0:
                return False
            members = network.membership(len(network.blocks))
            return all(
                node.done for node in network.nodes if members.is_active(node.peer) and node is not liar
            )

        network.run(is_over, limit=400.0)
        assert len(network.blocks) == 10, f"seed {seed}"
        final = network.membership(10)
        assert len({tuple(hashes(node)) for node in network.nodes if final.is_active(node.peer)}) == 1


# a disk that is lost


def undecided(network: Network, until: float) -> None:
    """Nobody hears votes to finalize, so that round 1 goes on and on."""
    network.tamper = lambda sender, to, body: (
        None if network.now < until and isinstance(body, Vote) and body.choice is Choice.FINALIZE else body
    )


@pytest.mark.parametrize("crashes", [1, 2])
def test_a_member_that_lost_its_disk_does_not_vote_until_the_next_round(crashes: int) -> None:
    network = Network(4, rounds=3)
    victim = network.nodes[0]
    undecided(network, 20.0)
    network.start()
    network.run(lambda: bool(bodies(network, Vote, victim.number)), limit=20.0)
    network.kill(victim)
    victim.disk = Disk()
    before = len(bodies(network, Vote, victim.number))
    for _ in range(crashes):
        network.kill(victim)
        network.run_for(0.6)
        network.start(victim)
        network.run(lambda: bool(victim.disk.journal), limit=30.0)
    network.run(lambda: network.now > 19.0, limit=30.0)
    assert len(bodies(network, Vote, victim.number)) == before
    assert any(isinstance(entry, Recall) for entry in victim.disk.journal)
    network.finish(within=60.0)
    assert {body.round for body in bodies(network, Vote, victim.number)[before:]} == {2, 3}
    assert changes_of(network) == []
    assert not skipped(network)


def test_a_member_that_kept_its_disk_votes_on_whatever_others_recall() -> None:
    network = Network(4, rounds=1)
    victim = network.nodes[0]
    undecided(network, 12.0)
    network.start()
    network.run(lambda: bool(bodies(network, Vote, victim.number)), limit=20.0)
    network.kill(victim)
    network.run_for(0.6)
    network.start(victim)
    network.run(lambda: network.now > 11.0, limit=30.0)
    assert bodies(network, Recall)
    assert not any(isinstance(entry, Recall) for entry in victim.disk.journal)
    network.finish(within=60.0)


def test_a_recall_of_somebody_elses_vote_or_a_forged_one_silences_nobody() -> None:
    network = Network(4, rounds=1)
    victim, other = network.nodes[0], network.nodes[1]
    network.start()
    until_phase(network, victim, Phase.TRAIN, 1)
    true = vote(network, other, 1)
    for body in (Recall(peer=other.peer, vote=true), Recall(peer=victim.peer, vote=true)):
        network.tell(victim, 1, MessageReceived(sender=other.peer, body=body))
    network.finish(within=60.0)
    assert bodies(network, Vote, victim.number)


# the chain


def test_a_member_that_is_two_hundred_rounds_behind_fetches_the_way_and_the_newest_model() -> None:
    rounds = 220
    network = Network(3, rounds=rounds, training=(0.01, 0.02), delay=(0.001, 0.002), min_updates=0.3)
    away = network.nodes[2]
    network.notice = (0.0, 0.01)
    network.start()
    until_phase(network, away, Phase.TRAIN, 3)
    network.kill(away)
    network.run(lambda: len(network.certified) >= 210, limit=2000.0)
    network.start(away)
    network.finish(within=200.0)
    assert len(away.disk.history) == rounds
    assert hashes(away) == hashes(network.nodes[0])
    caught = [item.round for item in away.finished if item.round > 3]
    assert caught[0] > 3 + BATCH
    assert len(caught) < 40


def links(network: Network) -> Links:
    members = Membership(network.manifest.task_id, network.manifest.peer_ids)
    return Links(Electorate(MAX_COMMITTEE, verify), genesis(members, INITIAL.digest))


def signed(network: Network, certificate: Certificate) -> Certificate:
    """The certificate with true votes by all members for the block that it has now."""
    data = vote_bytes(network.manifest.task_id, certificate.round, 1, Choice.FINALIZE, certificate.block.hash)
    votes = tuple((number, sign(who, data)) for number, who in enumerate(network.manifest.peer_ids))
    return Certificate(view=1, block=certificate.block, votes=votes)


def test_a_chain_with_a_false_parent_or_impossible_changes_is_refused() -> None:
    network = Network(3, rounds=3)
    network.start()
    network.finish(within=60.0)
    first, second, third = network.nodes[0].disk.history
    assert links(network).follow_all(0, [first, second, third]).accepted == (first, second, third)
    for number, field in ((0, "parent"), (1, "parent"), (1, "base"), (0, "base")):
        bad = [first, second, third]
        change: dict[str, Any] = {field: bytes(32)}
        block = replace(bad[number].block, **change)
        bad[number] = signed(network, replace(bad[number], block=block))
        found = links(network).follow_all(0, bad)
        assert found.accepted == tuple(bad[:number])
        assert found.refused == ((0, bad[number], "past"),)
    ejected, _ = ejection(peer(50))
    strange = signed(network, replace(first, block=replace(first.block, changes=(ejected,))))
    assert links(network).follow(0, strange).refused == ((0, strange, "changes"),)
    assert links(network).follow_all(0, [first, first]).accepted == (first,)


class Behind(Solo):
    """A machine at the beginning of a long task."""

    def __init__(self) -> None:
        super().__init__(count=3, rounds=100)
        self.start()

    def ahead(self, now: float, number: int = 90) -> list[FetchHistory]:
        found = actions_of(self.hear(1, Hello(round=number, base=bytes(32)), now), FetchHistory)
        return [action for action in found if isinstance(action, FetchHistory)]


def test_who_is_far_behind_asks_for_a_range_once_and_again_only_after_a_while() -> None:
    solo = Behind()
    first, second = (node.peer for node in solo.network.nodes[1:])
    assert solo.ahead(1.0) == [FetchHistory(first=1, count=FETCHED, holders=(first,))]
    assert solo.ahead(1.1) == []
    solo.machine.handle(HistoryFailed(), 1.2)
    assert solo.ahead(1.3) == []
    solo.hear(2, Hello(round=1, base=INITIAL.digest), 4.0)
    assert solo.ahead(5.0, 20) == [FetchHistory(first=1, count=19, holders=(first, second))]
    chain = certified(3, 3)
    forged = replace(chain[1], votes=chain[0].votes)
    actions = solo.machine.handle(HistoryFetched(holder=first, certificates=(chain[0], forged)), 5.1)
    assert actions_of(actions, Misbehaved) == [Misbehaved(round=1, peer=first, rule="past")]
    assert solo.ahead(5.2) == []


def test_an_answer_that_leads_further_is_followed_by_the_next_question() -> None:
    network = Network(3, rounds=100, training=(0.01, 0.02))
    network.start()
    network.run(lambda: len(network.certified) >= 90, limit=500.0)
    solo = Behind()
    first = solo.network.nodes[1].peer
    chain = network.nodes[0].disk.history
    [asked] = solo.ahead(1.0)
    answer = HistoryFetched(holder=first, certificates=tuple(chain[: asked.count]))
    actions = solo.machine.handle(answer, 1.1)
    assert FetchHistory(first=65, count=25, holders=(first,)) in actions
    forged = replace(chain[64], votes=chain[63].votes)
    actions = solo.machine.handle(HistoryFetched(holder=first, certificates=(forged,)), 1.2)
    assert actions == [Misbehaved(round=65, peer=first, rule="signature")]
    solo.machine.handle(HistoryFetched(holder=peer(99), certificates=tuple(chain[64:])), 1.3)
    assert solo.machine.round == 1


def test_a_machine_that_starts_behind_its_own_chain_takes_the_newest_model_first() -> None:
    chain = certified(3, 3)
    solo = Solo()
    solo.machine.handle(Started(initial=INITIAL, certificate=chain[0], history=tuple(chain[:2])), 0.0)
    assert solo.machine.phase is Phase.CERTIFIED
    actions = solo.machine.handle(ModelAdopted(round=2), 0.1)
    assert actions_of(actions, Checkpoint) == [Checkpoint(certificate=chain[1], chain=(chain[1],))]
    assert solo.machine.round == 3


# what members say of themselves and others


def test_an_accusation_is_written_once_and_passed_on_by_who_found_it_only() -> None:
    solo = Solo(4)
    solo.start()
    solo.greet()
    liar = solo.network.nodes[2]
    votes = [vote(solo.network, liar, label) for label in (1, 2)]
    accusation = Accuse(evidence=evidence_of(liar.peer, *votes))
    solo.hear(2, votes[0], 0.1)
    actions = solo.hear(2, votes[1], 0.1)
    assert [action for action in actions if not isinstance(action, Misbehaved)] == [
        WriteJournal(entries=(accusation,)),
        Publish(body=accusation),
    ]
    assert solo.hear(1, accusation, 0.2) == []
    other = Solo(4)
    other.start()
    assert other.hear(1, accusation) == [WriteJournal(entries=(accusation,))]
    assert other.hear(3, accusation) == []


def test_joins_of_members_are_no_matter_of_the_rounds() -> None:
    solo = Solo()
    solo.start()
    assert solo.hear(1, Join(round=1, credential=b"x")) == []


def test_a_peer_that_left_cannot_start_again() -> None:
    network = Network(3)
    membership = Membership(network.manifest.task_id, network.manifest.peer_ids)
    change, _ = ejection(network.nodes[0].peer)
    with pytest.raises(InvalidInput):
        RoundMachine(
            manifest=network.manifest,
            peer=network.nodes[0].peer,
            sign=bytes,
            rng=Random(1),
            membership=membership.apply([change]),
        )


def test_a_change_is_told_with_the_membership_that_it_makes() -> None:
    network = Network(4, rounds=4)
    equivocates(network, network.nodes[2])
    network.start()
    network.run(lambda: all(node.done for node in network.nodes), limit=100.0)
    [(number, _, who)] = changes_of(network)
    told = [note for note in network.nodes[0].notes if isinstance(note, MembershipChanged)]
    assert [(note.round, note.changes) for note in told] == [(number, network.blocks[number].changes)]
    assert not told[0].membership.is_active(who)
