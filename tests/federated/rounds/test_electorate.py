"""Tasks of more members than vote: the draw, whole tasks under faults, and catching up from draw to draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from random import Random

import pytest

from federated.manifest import MAX_MEMBERS, ByWork
from federated.rounds.actions import (
    Action,
    Adopt,
    Checkpoint,
    FetchHistory,
    Misbehaved,
    Publish,
    RoundFinished,
    TaskFinished,
    Train,
)
from federated.rounds.archive import HISTORY, STEP, Archive
from federated.rounds.catching_up import MAX_HOLDERS
from federated.rounds.chain import BATCH, Head, Links, genesis
from federated.rounds.committee import Electorate, Membership, Panel, numbers_in, set_of
from federated.rounds.early import MAX_EARLY, MIN_EARLY, most_early
from federated.rounds.events import MessageReceived, ModelAdopted, Phase, Started, TrainFailed
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import (
    Body,
    Certificate,
    Choice,
    Commit,
    Hello,
    Propose,
    Reveal,
    Vote,
    vote_bytes,
)
from tests.federated.rounds import chains
from tests.federated.rounds.chains import Chain, joining
from tests.federated.rounds.network import INITIAL, Network, Node, bodies, sign, verify
from tests.federated.rounds.table import BASE, TASK
from tests.federated.rounds.test_machine import Chaos, actions_of, skipped, until_phase
from tests.federated.samples import manifest, peer

WATCHED = (Phase.TRAIN, Phase.COMMIT, Phase.AWAIT)


class Draw:
    """The committees of a task of `count` members."""

    def __init__(self, count: int, seats: int) -> None:
        self.membership = Membership(TASK, [peer(number) for number in range(count)])
        self._electorate = Electorate(seats, verify)

    def panel(self, number: int, base: bytes) -> Panel:
        return self._electorate.panel(number, base, self.membership)


def electorate(count: int, seats: int) -> Draw:
    return Draw(count, seats)


def panel_of(network: Network, number: int) -> Panel:
    """The committee of a round that has begun."""
    task = network.manifest
    base = INITIAL.digest if number == 1 else network.certified[number - 1]
    return Electorate(task.seats, verify).panel(number, base, network.membership(number - 1))


# the draw


def test_members_are_numbered_as_bits() -> None:
    assert numbers_in(0) == []
    assert numbers_in(0b1011) == [0, 1, 3]
    assert numbers_in(1 << 1023 | 1) == [0, 1023]
    assert set_of([0, 1, 3]) == 0b1011


def test_a_committee_is_the_same_everywhere_and_another_one_for_each_round_and_model() -> None:
    drawn = [electorate(40, 7).panel(*key) for key in [(1, BASE), (1, BASE), (2, BASE), (1, TASK)]]
    assert drawn[0].members == drawn[1].members
    assert drawn[0].committee.members == drawn[1].committee.members
    assert len({panel.members for panel in drawn}) == 3
    for panel in drawn:
        assert (panel.committee.size, panel.committee.quorum, len(panel.members)) == (7, 5, 7)
        assert panel.voters == set_of(panel.members)
        members = [peer(number) for number in range(40)]
        assert [sorted(members)[number] for number in panel.members] == list(panel.committee.members)
        assert [panel.seat(number) for number in panel.members] == list(range(7))
        assert [panel.seat(number) for number in range(40)].count(None) == 33


def test_the_order_in_which_members_are_listed_changes_no_draw() -> None:
    peers = [peer(number) for number in range(30)]
    turned = Electorate(5, verify).panel(3, BASE, Membership(TASK, peers[::-1]))
    assert turned.members == electorate(30, 5).panel(3, BASE).members


def test_who_joined_in_a_block_is_drawn_from_the_round_after_the_next_on() -> None:
    task = manifest(members=[str(peer(number)) for number in range(6)], rounds=60, committee=5)
    chain = Chain(task.model_copy(update={"admission": ByWork(kind="work", bits=8)}))
    joined: dict[int, int] = {}  # by number: the round of the block
    voted: Counter[int] = Counter()
    links, heads = Links(Electorate(5, chains.verify), chain.head), dict[int, Head]()
    for number in range(1, 41):
        panel = links.panel()
        for member in panel.members:
            voted[member] += 1
            assert joined.get(member, -1) < number - 1
        assert panel.committee.size == 5
        changes = [joining(peer(100 + number))] if number % 2 else []
        certificate = chain.extend(*changes)
        if changes:
            joined[5 + len(joined) + 1] = number
        assert links.follow(0, certificate).accepted == (certificate,)
        assert links.panel_of(certificate) == panel
        heads[number] = links.head
    assert sum(voted[member] for member in joined) > 20
    for certificate, following in pairwise(chain.certificates[-9:]):  # after a restart they are the same
        again = Links(Electorate(5, chains.verify), replace(heads[certificate.round], newest=0))
        again.restore([certificate])
        assert again.head == heads[certificate.round]
        known = links.panel_of(following)
        assert known is not None
        assert again.panel().members == known.members


@pytest.mark.parametrize(("older", "newest", "pool"), [(6, 3, 6), (4, 9, 4), (3, 9, 12), (1, 9, 10)])
def test_the_newest_are_drawn_only_where_the_others_are_too_few_for_a_committee(
    older: int, newest: int, pool: int
) -> None:
    members = Membership(TASK, [peer(number) for number in range(older)])
    members = members.apply([joining(peer(100 + number)) for number in range(newest)])
    new, drawn = set_of(range(older, older + newest)), Counter[int]()
    for number in range(1, 60):
        drawn.update(Electorate(5, verify).panel(number, BASE, members, new).members)
    assert sorted(drawn) == list(range(pool))


def test_every_member_is_drawn_about_equally_often() -> None:
    made, drawn = electorate(50, 10), Counter[int]()
    for number in range(1, 1001):
        drawn.update(made.panel(number, BASE).members)
    assert sum(drawn.values()) == 10_000
    # 200 each, with a standard deviation of sqrt(1000 × 0.2 × 0.8) = 12.6
    assert all(abs(drawn[number] - 200) < 4.5 * 12.6 for number in range(50))


def test_with_as_many_seats_as_members_everybody_votes_in_every_round() -> None:
    made = electorate(7, 7)
    assert made.panel(1, BASE) is made.panel(2, TASK)
    assert made.panel(1, BASE).members == tuple(range(7))


# whole tasks


@pytest.mark.parametrize(("count", "committee", "rounds"), [(5, 4, 4), (20, 7, 4), (65, 64, 1), (80, 13, 2)])
def test_all_members_train_a_committee_votes_and_everybody_has_its_model(
    count: int, committee: int, rounds: int
) -> None:
    network = Network(count, rounds=rounds, committee=committee, training=(0.1, 0.5))
    network.start()
    network.finish(within=30.0)
    assert not skipped(network)
    for node in network.nodes:
        assert [item.round for item in node.finished] == list(range(1, rounds + 1))
        assert [len(item.participants) for item in node.finished] == [count] * rounds
        assert [item.model.digest for item in node.finished] == list(network.certified.values())
        assert node.trained == list(range(1, rounds + 1))
        assert not node.notes
    for number in range(1, rounds + 1):
        voters = panel_of(network, number).members
        assert sorted({sender for _, sender, body in network.sent if is_vote(body, number)}) == list(voters)
        outside = [node.finished[number - 1] for node in network.nodes if node.number not in voters]
        assert all(item.catch_up and tuple(item.phases) in (WATCHED, WATCHED[:2]) for item in outside)
    assert len(set(network.certified.values())) == rounds


def is_vote(body: Body, number: int) -> bool:
    return isinstance(body, Vote) and body.round == number


@pytest.mark.parametrize(("count", "committee"), [(10, 4), (40, 7)])
def test_when_all_goes_well_nobody_says_anything_twice(count: int, committee: int) -> None:
    network = Network(count, rounds=2, committee=committee)
    network.start()
    network.finish(within=30.0)
    network.run_for(3.0)
    said = Counter((sender, body.round) for _, sender, body in network.sent if not isinstance(body, Hello))
    for number in (1, 2):
        voters = panel_of(network, number).members
        assert all(said[node.number, number] == 2 for node in network.nodes if node.number not in voters)
        assert all(said[voter, number] <= 6 for voter in voters)
        certificates = [body for body in bodies(network, Certificate) if body.round == number]
        assert len(certificates) <= 2
    assert len(bodies(network, Hello)) == count  # each one once, before the first round


class Trouble:
    """In every round, voters that lie and voters that crash, as many in all as its committee withstands."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network = network
        self.rng = Random(seed)
        self.liars: dict[int, list[int]] = {}
        network.tamper = self.tamper
        network.after((0.0, 0.0), self.crash)

    def bad(self, number: int) -> list[int]:
        """The member numbers that cause trouble in a round: half of them lie, half of them crash."""
        if number not in self.liars:
            panel = panel_of(self.network, number)
            self.liars[number] = self.rng.sample(panel.members, panel.committee.faults)
        return self.liars[number]

    def split(self, number: int) -> tuple[list[int], list[int]]:
        bad = self.bad(number)
        return bad[::2], bad[1::2]

    def tamper(self, sender: Node, to: Node, body: Body) -> Body | None:
        """Liars vote for another block towards half of the members, and propose to the other half only."""
        if not isinstance(body, Vote | Propose) or sender.number not in self.split(body.round)[0]:
            return body
        if to.number % 2:
            return body
        if isinstance(body, Propose):
            return None
        block = sha256(b"another" + body.block).digest()
        data = vote_bytes(self.network.manifest.task_id, body.round, body.view, Choice.NOTARIZE, block)
        return replace(body, choice=Choice.NOTARIZE, block=block, signature=sign(sender.peer, data))

    def crash(self) -> None:
        """Kills the voters of the round in progress that are to crash; they come back after it."""
        number = len(self.network.certified) + 1
        if number > self.network.manifest.rounds:
            return
        dead = [self.network.nodes[member] for member in self.split(number)[1]]
        for node in dead:
            node.kill_after = node.operations + self.rng.randrange(6)
        self.wait(number, dead)

    def wait(self, number: int, dead: list[Node]) -> None:
        if number in self.network.certified:
            for node in dead:
                node.kill_after = None
            self.network.start(*dead) if dead else None
            self.crash()
        else:
            self.network.after((0.1, 0.1), partial(self.wait, number, dead))


@pytest.mark.parametrize(("count", "committee", "seeds"), [(10, 4, 20), (20, 7, 5), (30, 13, 1), (80, 13, 1)])
def test_a_committee_withstands_liars_and_crashes_up_to_a_third_of_it(
    count: int, committee: int, seeds: int
) -> None:
    for seed in range(seeds):
        rounds = {65: 2, 200: 1}.get(count, 4)
        network = Network(count, seed, rounds=rounds, committee=committee, training=(0.1, 0.5))
        Trouble(network, seed)
        network.start()
        network.run(
            lambda network=network: (
                len(network.alive()) == count and all(node.done for node in network.nodes)
            ),
            limit=200.0,
        )
        assert not skipped(network), f"seed {seed}"
        assert len(network.certified) == rounds


@pytest.mark.parametrize(("count", "committee", "seeds"), [(5, 4, 30), (6, 4, 20), (13, 5, 6), (20, 7, 1)])
def test_no_two_members_certify_different_models_and_all_finish_once_the_faults_end(
    count: int, committee: int, seeds: int
) -> None:
    for seed in range(seeds):
        chaos = Chaos(count, seed, until=15.0, committee=committee)
        chaos.network.start()
        try:
            chaos.network.run(chaos.is_over, limit=120.0)
        except AssertionError as exc:
            raise AssertionError(f"{count} peers, seed {seed}, {chaos.drawn}: {exc}") from exc


def test_a_certificate_is_published_though_its_first_signer_is_gone() -> None:
    network = Network(20, rounds=1, committee=7, notice=(30.0, 60.0))
    network.tamper = lambda sender, to, body: (
        None if isinstance(body, Certificate) and network.now < sent_first(network) + STEP else body
    )
    network.start()
    network.finish(within=6.0)
    assert len(network.certified) == 1


def sent_first(network: Network) -> float:
    return min((at for at, _, body in network.sent if isinstance(body, Certificate)), default=1e9)


# catching up


@pytest.mark.parametrize("serves", [True, False])
def test_a_member_that_was_away_for_many_rounds_follows_the_certificates_and_takes_the_newest_model(
    serves: bool,
) -> None:
    rounds = 2 * BATCH + 6
    network = Network(12, rounds=rounds, committee=4, training=(0.1, 0.2))
    network.serves = serves
    away = network.nodes[3]
    network.lag = lambda node, action: 1.0 if node is away and isinstance(action, Adopt) else 0.0
    network.start()
    until_phase(network, away, Phase.TRAIN, 2)
    network.kill(away)
    network.run(lambda: len(network.certified) >= rounds - 3, limit=200.0)
    began = network.now
    network.start(away)
    network.finish(within=60.0)
    after = [item.round for item in away.finished if item.round > 1]
    assert after[0] >= 2 + BATCH - 1  # the models in between were not fetched
    assert len(after) < rounds / 2
    assert away.finished[-1].model.digest == network.certified[rounds]
    assert away.disk.certificate is not None
    assert away.disk.certificate.round == rounds
    answers = [body.round for at, _, body in network.sent if at >= began and isinstance(body, Certificate)]
    assert len(set(answers)) <= BATCH + 6 if serves else sorted(set(answers)) == list(range(2, rounds + 1))
    assert len(answers) < 2 * rounds


def test_a_member_that_starts_when_all_is_over_gets_there_from_the_first_model() -> None:
    network = Network(12, rounds=BATCH + 3, committee=4, training=(0.1, 0.2))
    late = network.nodes[0]
    network.start(*network.nodes[1:])
    network.finish(within=200.0)
    network.start(late)
    network.finish(within=30.0)
    assert late.finished[-1].model.digest == network.certified[BATCH + 3]
    assert not [note for node in network.nodes for note in node.notes]


def test_after_all_were_restarted_they_still_know_the_way_for_one_that_is_far_behind() -> None:
    network = Network(10, rounds=8, committee=4, training=(0.1, 0.2))
    behind = network.nodes[0]
    network.start()
    until_phase(network, behind, Phase.TRAIN, 2)
    network.kill(behind)
    network.run(lambda: all(node.done for node in network.alive()), limit=200.0)
    for node in network.nodes[1:]:
        network.kill(node)
    network.start()
    network.finish(within=30.0)
    assert behind.finished[-1].round == 8


# one machine, told by hand


class Solo:
    """One machine among `count` members with a committee of 4; the certificates come from a whole task."""

    def __init__(self, count: int = 12, rounds: int = 6, number: int | None = None) -> None:
        self.network = Network(count, rounds=rounds, committee=4, training=(0.1, 0.2))
        self.network.start()
        self.network.finish(within=200.0)
        self.certificates = [self.network.nodes[0].disk.history[at] for at in range(rounds)]
        outside = [at for at in range(count) if panel_of(self.network, 1).seat(at) is None]
        self.me = outside[0] if number is None else number
        peer_id = self.network.nodes[self.me].peer
        self.machine = RoundMachine(
            manifest=self.network.manifest,
            peer=peer_id,
            sign=partial(sign, peer_id),
            rng=Random(1),
            verify=verify,
        )

    def start(self, done: int = 0) -> list[Action]:
        certificate = self.certificates[done - 1] if done else None
        history = tuple(self.certificates[: max(done - 1, 0)])
        event = Started(initial=INITIAL, certificate=certificate, history=history)
        return self.machine.handle(event, 0.0)

    def hear(self, number: int, body: Body, now: float = 0.0) -> list[Action]:
        sender = self.network.nodes[number].peer
        return self.machine.handle(MessageReceived(sender=sender, body=body), now)

    @property
    def other(self) -> int:
        return (self.me + 1) % len(self.network.nodes)


def test_a_certificate_counts_only_after_the_one_before_it() -> None:
    solo = Solo()
    first, second, third, *_ = solo.certificates
    solo.start()
    assert not actions_of(solo.hear(solo.other, third), Adopt)
    assert not actions_of(solo.hear(solo.other, second), Adopt)
    assert solo.machine.round == 1
    assert solo.machine.phase is Phase.SYNC
    adopted = [action for action in solo.hear(solo.other, first) if isinstance(action, Adopt)]
    assert [action.certificate for action in adopted] == [third]
    assert not actions_of(solo.hear(solo.other, second), Adopt)
    actions = solo.machine.handle(ModelAdopted(round=3), 0.1)
    [checkpoint] = actions_of(actions, Checkpoint)
    assert checkpoint == Checkpoint(certificate=third, chain=(first, second, third))
    assert actions_of(actions, Train) == [Train(round=4, base=third.block.model)]


def test_a_certificate_of_another_committee_is_refused() -> None:
    solo = Solo()
    first = solo.certificates[0]
    solo.start()
    task, peers = solo.network.manifest.task_id, solo.network.manifest.peer_ids
    voters = panel_of(solo.network, 1).members
    sender = solo.network.nodes[solo.other].peer
    refused = [Misbehaved(round=1, peer=sender, rule="signature")]
    others = [number for number in range(12) if number not in voters]
    data = vote_bytes(task, 1, first.view, Choice.FINALIZE, first.block.hash)
    for signers in (others[:4], others[:3], voters[:2]):
        votes = tuple((at, sign(peers[number], data)) for at, number in enumerate(signers))
        assert solo.hear(solo.other, replace(first, votes=votes)) == refused
    # the committee that another base would have drawn, which a liar could choose to its liking
    base = bytes(32)
    chosen = Electorate(4, verify).panel(1, base, Membership(task, peers))
    block = replace(first.block, base=base)
    data = vote_bytes(task, 1, 1, Choice.FINALIZE, block.hash)
    votes = tuple((at, sign(peer_id, data)) for at, peer_id in enumerate(chosen.committee.members))
    past = [Misbehaved(round=1, peer=sender, rule="past")]
    assert solo.hear(solo.other, Certificate(view=1, block=block, votes=votes)) == past
    # and the committee of the wrong round
    moved = replace(solo.certificates[1], block=replace(solo.certificates[1].block, round=1))
    assert solo.hear(solo.other, moved) == past
    assert actions_of(solo.hear(solo.other, first), Adopt)


def test_a_false_certificate_that_comes_early_is_refused_at_its_turn_and_the_true_one_taken_later() -> None:
    solo = Solo()
    first, second, *_ = solo.certificates
    solo.start()
    liar = (solo.me + 2) % 12
    forged = replace(second, votes=first.votes)
    assert solo.hear(liar, forged) == []
    actions = solo.hear(solo.other, first)
    assert [action.certificate for action in actions if isinstance(action, Adopt)] == [first]
    blamed = Misbehaved(round=2, peer=solo.network.nodes[liar].peer, rule="signature")
    assert actions_of(actions, Misbehaved) == [blamed]
    again = [action for action in solo.hear(solo.other, second) if isinstance(action, Adopt)]
    assert [action.certificate for action in again] == [second]


def test_a_certificate_too_far_ahead_makes_a_member_ask_for_those_between_once_for_all() -> None:
    solo = Solo(rounds=BATCH + 2)
    solo.start()
    [hello] = [item.body for item in solo.machine.handle_timer(0.5) if isinstance(item, Publish)]
    assert hello == Hello(round=1, base=INITIAL.digest)
    for at in (1.0, 1.05):
        asked = actions_of(solo.hear(solo.other, solo.certificates[-1], at), FetchHistory)
        holders = (solo.network.nodes[solo.other].peer,)
        wanted = FetchHistory(first=1, count=BATCH + 2, holders=holders)
        assert asked == ([wanted] if at == 1.0 else [])
    deadline = solo.machine.next_deadline()
    assert deadline is not None
    assert deadline <= 1.3
    assert actions_of(solo.machine.handle_timer(deadline), Publish) == [Publish(body=hello)]
    assert (solo.machine.next_deadline() or 0.0) > deadline


def test_an_answer_has_the_certificate_that_is_missed_and_those_after_it() -> None:
    solo = Solo(rounds=BATCH + 4)
    solo.start(done=BATCH + 4)
    before = (solo.me - 1) % 12  # the one that we come after: we answer it at once
    certificates = solo.certificates
    actions = solo.hear(before, Hello(round=2, base=certificates[0].block.model.digest), 10.0)
    assert actions == [Publish(body=body) for body in certificates[1 : BATCH + 1]]
    assert solo.hear(before, Hello(round=3, base=certificates[1].block.model.digest), 10.1) == []
    actions = solo.hear(before, Hello(round=BATCH + 2, base=bytes(32)), 10.2)
    assert actions == [Publish(body=body) for body in certificates[BATCH + 1 :]]


def test_a_member_answers_after_those_whose_turn_it_is_and_not_if_one_of_them_did() -> None:
    solo = Solo(rounds=2)
    [finished] = solo.start(done=2)
    assert isinstance(finished, TaskFinished)
    assert solo.machine.next_deadline() is None
    third = (solo.me - 3) % 12
    hello = Hello(round=2, base=solo.certificates[0].block.model.digest)
    assert solo.hear(third, hello, 10.0) == []
    assert solo.machine.next_deadline() == pytest.approx(10.0 + 2 * STEP)
    assert solo.machine.handle_timer(10.1) == []
    assert solo.machine.handle_timer(10.0 + 2 * STEP) == [Publish(body=solo.certificates[1])]
    assert solo.hear(third, hello, 20.0) == []
    false = replace(solo.certificates[1], votes=solo.certificates[0].votes)
    for body in (false, replace(false, block=replace(false.block, examples=1)), false):
        solo.hear(solo.other, body, 20.1)
    assert solo.machine.next_deadline() == pytest.approx(20.0 + 2 * STEP)  # nobody was helped by that
    solo.hear(solo.other, solo.certificates[1], 20.2)
    assert solo.machine.next_deadline() is None


def test_a_certificate_with_other_signers_spares_us_to_send_ours() -> None:
    solo = Solo(rounds=2)
    solo.start(done=1)
    solo.hear(solo.other, solo.certificates[1], 1.0)
    solo.machine.handle(ModelAdopted(round=2), 1.1)
    hello = Hello(round=2, base=solo.certificates[0].block.model.digest)
    solo.hear((solo.me - 3) % 12, hello, 20.0)
    assert solo.machine.next_deadline() == pytest.approx(20.0 + 2 * STEP)
    turned = replace(solo.certificates[1], votes=other_signers(solo))
    solo.hear(solo.other, turned, 20.1)
    assert solo.machine.next_deadline() is None


def other_signers(solo: Solo) -> tuple[tuple[int, bytes], ...]:
    """The votes of the certificate of round 2, with its fourth voter in place of the first."""
    certificate, committee = solo.certificates[1], panel_of(solo.network, 2).committee
    task, block = solo.network.manifest.task_id, certificate.block.hash
    data = vote_bytes(task, 2, certificate.view, Choice.FINALIZE, block)
    signers = sorted({0, 1, 2, 3} - {certificate.votes[0][0]})
    return tuple((voter, sign(committee.members[voter], data)) for voter in signers)


def test_outside_of_the_committee_only_commits_are_counted_and_the_own_update_is_revealed() -> None:
    solo = Solo()
    solo.start()
    for number in range(12):
        solo.hear(number, Hello(round=1, base=INITIAL.digest))
    assert solo.machine.phase is Phase.TRAIN
    solo.machine.handle(TrainFailed(round=1), 0.5)
    for number in range(12):
        solo.hear(number, Commit(round=1, commitment=bytes(32)), 0.6)
    assert solo.machine.phase is Phase.AWAIT
    reveal = Reveal(round=1, root=bytes(32), size=1, nonce=bytes(32), examples=1)
    assert solo.hear(solo.other, reveal, 0.7) == []  # a false one, but that is for voters to say
    assert solo.machine.next_deadline() is None
    actions = solo.hear(solo.other, solo.certificates[0], 0.8)
    [adopt] = actions_of(actions, Adopt)
    assert isinstance(adopt, Adopt)
    assert len(adopt.holders) == 11
    [finished] = actions_of(solo.machine.handle(ModelAdopted(round=1), 1.0), RoundFinished)
    assert isinstance(finished, RoundFinished)
    assert tuple(finished.phases) == WATCHED
    assert finished.refused == ()


def test_an_update_is_revealed_again_at_growing_intervals_while_no_certificate_comes() -> None:
    network = Network(12, rounds=1, committee=4, training=(0.1, 0.2))
    network.tamper = lambda sender, to, body: None if isinstance(body, Vote) else body
    network.start()
    network.run_for(30.0)
    outside = next(at for at in range(12) if panel_of(network, 1).seat(at) is None)
    times = [at for at, sender, body in network.sent if sender == outside and isinstance(body, Reveal)]
    gaps = [later - at for at, later in pairwise(times)]
    assert len(gaps) >= 3
    assert all(later == pytest.approx(2 * gap) for gap, later in pairwise(gaps))


def test_votes_of_those_who_have_none_are_not_heard() -> None:
    solo = Solo(number=panel_of(Network(12, rounds=1, committee=4), 1).members[0])
    solo.start()
    for number in range(12):
        solo.hear(number, Hello(round=1, base=INITIAL.digest))
    outside = next(at for at in range(12) if panel_of(solo.network, 1).seat(at) is None)
    vote = Vote(round=1, view=1, choice=Choice.NOTARIZE, block=bytes(31) + b"1", signature=bytes(64))
    assert solo.hear(outside, vote, 0.1) == []


def test_of_many_members_fewer_early_messages_are_kept_and_fewer_are_asked_for_a_model() -> None:
    network = Network(100, rounds=2, committee=4)
    machine = RoundMachine(
        manifest=network.manifest, peer=network.nodes[0].peer, sign=bytes, rng=Random(1), verify=verify
    )
    assert MIN_EARLY <= most_early(len(network.nodes)) < MAX_EARLY
    assert most_early(len(network.nodes)) * len(network.nodes) <= MAX_EARLY * MAX_EARLY
    network.start()
    network.run(lambda: bool(bodies(network, Certificate)), limit=30.0)
    machine.handle(Started(initial=INITIAL), 0.0)
    certificate = bodies(network, Certificate)[0]
    signers = [panel_of(network, 1).committee.members[voter] for voter, _ in certificate.votes]
    sender = next(item for item in signers if item != network.nodes[0].peer)
    [adopt] = actions_of(machine.handle(MessageReceived(sender=sender, body=certificate), 0.0), Adopt)
    assert isinstance(adopt, Adopt)
    assert len(adopt.holders) == MAX_HOLDERS
    assert set(signers) - {network.nodes[0].peer} <= set(adopt.holders[:3])


# the archive


def made(number: int, solo: Solo) -> Certificate:
    block = replace(solo.certificates[0].block, round=number)
    return replace(solo.certificates[0], block=block)


def test_no_more_certificates_are_kept_than_so_many() -> None:
    solo, archive = Solo(rounds=1), Archive(1.0)
    for number in range(1, HISTORY + 11):
        archive.keep(made(number, solo))
    archive.plan(10, 0, 0.0)
    assert archive.take_due(0.0) == []
    archive.plan(11, 0, 0.0)
    assert [item.round for item in archive.take_due(0.0)] == list(range(11, 11 + BATCH))
    archive.plan(12, 1, 5.0)
    archive.keep(made(HISTORY + 11, solo))
    archive.keep(made(HISTORY + 12, solo))
    assert archive.take_due(100.0) == []


def test_links_keep_only_what_is_near() -> None:
    solo = Solo(rounds=BATCH + 2)
    task = solo.network.manifest
    links = Links(Electorate(4, verify), genesis(Membership(task.task_id, task.peer_ids), INITIAL.digest))
    for certificate in solo.certificates[BATCH:]:
        assert links.follow(1, certificate).is_ahead
    assert not links._waiting
    for certificate in solo.certificates[BATCH - 1 : 0 : -1]:
        assert links.follow(1, certificate).is_ahead
    assert links.follow(1, solo.certificates[0]).accepted == tuple(solo.certificates[:BATCH])
    assert links.follow(1, solo.certificates[0]).accepted == ()


def test_the_largest_task_has_a_draw_and_a_block_of_its_own() -> None:
    drawn = electorate(MAX_MEMBERS, 64).panel(1, BASE)
    assert len(drawn.members) == 64
    assert drawn.committee.quorum == 43
