from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.invitation import make_invitation
from federated.manifest import ByInvitation, TaskManifest
from federated.rounds.actions import FetchHistory, Misbehaved, Publish
from federated.rounds.admission import Admissions, accept_invitation
from federated.rounds.applicant import (
    BATCH,
    MAX_HOLDERS,
    Admitted,
    Applicant,
    ApplicantAction,
    ApplicantEvent,
    Refused,
    Stage,
)
from federated.rounds.events import HistoryFailed, HistoryFetched, MessageReceived, PeerConnected, PeerLost
from federated.rounds.messages import Certificate, Change, Hello, Join
from federated.rounds.trusted import TrustedBlock, parse_trusted_block
from p2p.errors import InvalidInput
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated.rounds.chains import INITIAL, Chain, joining, leaving, verify
from tests.federated.samples import manifest, members, peer

ISSUER = KeyPair.from_seed(bytes([1]) * 32)  # of `peer(1)`
JOINER = peer(9)
PERIOD = 2.5  # seconds; a quarter of the deadline of a phase


def task(**changes: Any) -> TaskManifest:
    values = {"members": members(4), "rounds": 400, "committee": 64, **changes}
    return manifest(admission=ByInvitation(kind="invitation", issuers=members(2)), **values)


def credential(manifest: TaskManifest, last_round: int = 300) -> bytes:
    return accept_invitation(make_invitation(ISSUER, manifest.task_id, last_round, bytes(32)), JOINER)


class Asker:
    """An applicant, and what came out of it."""

    def __init__(
        self, chain: Chain, last_round: int = 300, trusted: TrustedBlock | None = None, who: PeerId = JOINER
    ) -> None:
        self.chain = chain
        self.now = 0.0
        self.credential = credential(chain.manifest, last_round)
        self.machine = Applicant(
            manifest=chain.manifest,
            peer=who,
            credential=self.credential,
            initial=INITIAL,
            trusted=trusted,
            verify=verify,
        )
        self.actions: list[ApplicantAction] = []

    def tell(self, event: ApplicantEvent) -> list[ApplicantAction]:
        actions = self.machine.handle(event, self.now)
        self.actions += actions
        return actions

    def gossip(self, certificate: Certificate, number: int = 1) -> list[ApplicantAction]:
        return self.tell(MessageReceived(sender=peer(number), body=certificate))

    def tick(self, seconds: float = PERIOD) -> list[ApplicantAction]:
        self.now += seconds
        actions = self.machine.handle_timer(self.now)
        self.actions += actions
        return actions

    def answer(self, *certificates: Certificate, number: int = 0) -> list[ApplicantAction]:
        return self.tell(HistoryFetched(holder=peer(number), certificates=certificates))

    def follow(self) -> list[ApplicantAction]:
        """Connects to the members, who tell all that they have; what came out of the last answer."""
        actions = self.tell(PeerConnected(peer=peer(0))) or self.tick()
        while (asked := one(actions, FetchHistory)) is not None:
            actions = self.answer(*self.chain.after(asked.first, asked.count))
        return actions


def one(actions: list[ApplicantAction], kind: type[Any]) -> Any:
    """The only action of its kind, None if there is none."""
    found = [action for action in actions if isinstance(action, kind)]
    assert len(found) <= 1
    return found[0] if found else None


def asked_in(actions: list[ApplicantAction]) -> list[int]:
    """The rounds in which it asked to be let in."""
    bodies = [action.body for action in actions if isinstance(action, Publish)]
    return [body.round for body in bodies if isinstance(body, Join)]


def test_it_follows_a_long_chain_and_then_asks_to_be_let_in() -> None:
    chain = Chain(task())
    chain.extend(rounds=100)
    asker = Asker(chain)
    assert asker.follow() == [Publish(body=Join(round=101, credential=asker.credential))]
    asked = [action for action in asker.actions if isinstance(action, FetchHistory)]
    assert [action.first for action in asked] == list(range(1, 102, BATCH))
    assert asker.machine.reached == 100


def test_a_certificate_that_has_its_join_makes_it_a_member() -> None:
    chain = Chain(task())
    chain.extend(rounds=100)
    asker = Asker(chain)
    asker.follow()
    admitting = chain.extend(joining(JOINER))
    admitted = Admitted(
        certificate=admitting, membership=chain.head.membership, history=tuple(chain.certificates)
    )
    assert asker.gossip(admitting) == [admitted]
    assert admitted.membership.number(JOINER) == 4
    assert asker.machine.stage is Stage.ADMITTED
    assert asker.machine.next_deadline() is None
    assert asker.tick() == asker.gossip(chain.extend()) == []


def test_who_was_admitted_before_it_came_back_is_a_member_at_once() -> None:
    chain = Chain(task())
    chain.extend(joining(JOINER), rounds=40)
    chain.extend(rounds=5)
    admitted = one(Asker(chain).follow(), Admitted)
    assert admitted.certificate.round == 40


def test_it_asks_every_period_until_it_is_let_in() -> None:
    asker = Asker(Chain(task()))
    assert asked_in(asker.follow()) == [1]
    assert asked_in(asker.tick()) == [1]
    asker.answer(asker.chain.extend())
    assert asked_in(asker.tick()) == [2]
    assert asked_in(asker.tick(PERIOD / 2)) == []
    assert asker.machine.next_deadline() == asker.now + PERIOD / 2


def test_without_anybody_to_ask_it_waits() -> None:
    asker = Asker(Chain(task()))
    assert asker.tick() == asker.tick() == []


def test_it_asks_although_nobody_has_a_history() -> None:
    asker = Asker(Chain(task()))
    asker.tell(PeerConnected(peer=peer(0)))
    assert asked_in(asker.tell(HistoryFailed())) == [1]


def test_members_are_asked_first_and_then_others() -> None:
    chain = Chain(task())
    asker = Asker(chain)
    asker.machine.handle(PeerConnected(peer=peer(30)), 0.0)
    asker.tell(HistoryFailed())
    for number in (31, 1, 32, 0):
        asker.tell(PeerConnected(peer=peer(number)))
    asked = one(asker.tick(), FetchHistory)
    assert asked.holders == tuple(peer(number) for number in (1, 0, 30, 31, 32))
    asker.answer(number=1)  # it has nothing: the next one is asked
    assert one(asker.tick(), FetchHistory).holders[0] == peer(0)
    asker.answer(number=0)
    asker.tell(PeerLost(peer=peer(30)))
    assert one(asker.tick(), FetchHistory).holders == tuple(peer(number) for number in (31, 32, 1, 0))


def test_only_a_few_holders_are_asked_at_once() -> None:
    asker = Asker(Chain(task()))
    for number in range(20):
        asker.tell(PeerConnected(peer=peer(number)))
    asker.tell(HistoryFailed())
    assert len(one(asker.tick(), FetchHistory).holders) == MAX_HOLDERS


def test_a_certificate_of_a_later_round_sends_it_back_to_the_history() -> None:
    chain = Chain(task())
    asker = Asker(chain)
    asker.follow()
    missed, newest = chain.extend(), chain.extend()
    assert one(asker.gossip(newest), FetchHistory).first == 1
    assert asker.machine.stage is Stage.FOLLOW
    assert one(asker.tick(), FetchHistory) is None  # one answer at a time
    assert asked_in(asker.answer(missed, newest)) == [3]


def test_an_old_certificate_and_other_messages_are_nothing_to_it() -> None:
    chain = Chain(task())
    chain.extend(rounds=3)
    asker = Asker(chain)
    asker.follow()
    assert asker.gossip(chain.certificates[0]) == []
    assert asker.tell(MessageReceived(sender=peer(0), body=Hello(round=9, base=bytes(32)))) == []


def test_a_liar_is_reported_and_asked_no_more() -> None:
    chain = Chain(task())
    chain.extend()
    asker = Asker(chain)
    asker.tell(PeerConnected(peer=peer(0)))
    asker.tell(PeerConnected(peer=peer(1)))
    few = Chain(task()).make(voters=2)
    found = asker.answer(few, number=0)
    assert found == [
        Misbehaved(round=1, peer=peer(0), rule="signature"),
        FetchHistory(first=1, count=BATCH, holders=(peer(1),)),
    ]
    assert asker.answer(chain.certificates[0], number=0) != found  # nothing of his counts any more
    assert asker.machine.reached == 0
    asker.tick()
    assert asked_in(asker.answer(chain.certificates[0], number=1)) == [2]


def test_a_certificate_that_does_not_fit_the_chain_is_refused() -> None:
    chain, fork = Chain(task()), Chain(task(), salt=b"fork")
    chain.extend()
    fork.extend()
    asker = Asker(chain)
    asker.follow()
    assert one(asker.gossip(fork.extend(), number=3), Misbehaved).rule == "past"
    assert asker.machine.reached == 1


def test_more_certificates_than_were_asked_for_are_left_alone() -> None:
    chain = Chain(task())
    chain.extend(rounds=2 * BATCH)
    asker = Asker(chain)
    asker.tell(PeerConnected(peer=peer(0)))
    assert one(asker.answer(*chain.certificates), FetchHistory).first == BATCH + 1


@pytest.mark.parametrize("committee", [4, 64])
def test_it_follows_the_members_that_came_and_went(committee: int) -> None:
    chain = Chain(task(committee=committee))
    chain.extend(joining(peer(20)), joining(peer(21)), leaving(peer(0)))
    chain.extend(rounds=3)  # by voters that the manifest alone does not tell
    asker = Asker(chain)
    asker.follow()
    assert asker.machine.reached == 4
    assert asker.machine.membership == chain.head.membership


USED = Admissions(task()).proof_of(credential(task()))


@pytest.mark.parametrize(
    ("rule", "changes", "joined"),
    [
        ("expired", {"rounds": 400}, []),
        ("full", {"max_members": 5}, [joining(peer(20))]),
        ("used", {}, [joining(peer(20), USED)]),
        ("finished", {"rounds": 30}, []),
    ],
)
def test_it_gives_up_by_the_rule_that_is_against_it(
    rule: str, changes: dict[str, Any], joined: list[Change]
) -> None:
    chain = Chain(task(**changes))
    chain.extend(*joined, rounds=30)
    asker = Asker(chain, last_round=30 if rule == "expired" else 300)
    assert asker.follow() == [Refused(rule=rule)]
    assert asker.machine.stage is Stage.REFUSED
    assert asker.machine.next_deadline() is None
    assert asker.tick() == []


def test_who_left_does_not_come_back() -> None:
    chain = Chain(task())
    chain.extend(joining(JOINER))
    chain.extend(leaving(JOINER))
    asker = trusted_asker(chain, 2)
    asker.follow()
    assert asker.actions[-1] == Refused(rule="member")


# from a block that the user trusts


def trusted_asker(chain: Chain, number: int) -> Asker:
    block = chain.certificates[number - 1].block
    return Asker(chain, trusted=TrustedBlock(round=number, block=block.hash))


def test_the_past_of_a_trusted_block_is_gathered_backwards_and_then_it_goes_on() -> None:
    chain = Chain(task(committee=4))
    chain.extend(joining(peer(20)), leaving(peer(0)), rounds=10)
    chain.extend(rounds=40)
    asker = trusted_asker(chain, 40)
    assert asker.follow() == [Publish(body=Join(round=51, credential=asker.credential))]
    asked = [(action.first, action.count) for action in asker.actions if isinstance(action, FetchHistory)]
    assert asked == [(25, 16), (9, 16), (1, 8), (41, 16)]
    assert asker.machine.membership == chain.head.membership
    admitted = one(asker.gossip(chain.extend(joining(JOINER))), Admitted)
    assert admitted.history == tuple(chain.certificates)


def test_votes_before_the_trusted_block_are_not_looked_at() -> None:
    chain = Chain(task())
    chain.extend(joining(JOINER), rounds=4)
    asker = trusted_asker(chain, 4)
    chain.certificates = [replace(item, votes=((0, bytes(64)),)) for item in chain.certificates]
    assert isinstance(asker.follow()[0], Admitted)


def test_who_sends_another_past_is_reported_and_asked_no_more() -> None:
    chain, fork = Chain(task()), Chain(task(), salt=b"fork")
    chain.extend(rounds=30)
    fork.extend(rounds=30)  # with true votes: of members that made up another past
    asker = trusted_asker(chain, 30)
    asker.tell(PeerConnected(peer=peer(1)))
    asker.tell(PeerConnected(peer=peer(0)))
    mixed = (*fork.after(15, 10), *chain.after(25, 6))
    assert asker.answer(*mixed, number=1) == [
        Misbehaved(round=24, peer=peer(1), rule="trusted"),
        FetchHistory(first=9, count=BATCH, holders=(peer(0),)),
    ]
    asker.answer(*chain.after(9, BATCH), number=0)
    asker.answer(*chain.after(1, 8), number=0)
    assert asker.machine.reached == 30


def test_without_its_trusted_block_it_does_not_ask_to_be_let_in() -> None:
    chain = Chain(task())
    chain.extend(rounds=5)
    asker = trusted_asker(chain, 5)
    asker.tell(PeerConnected(peer=peer(0)))
    assert asker.gossip(chain.extend()) == []
    assert asker.answer() == []  # somebody else is asked in the next period
    assert one(asker.tick(), FetchHistory).first == 1
    assert asker.tell(HistoryFailed()) == []
    assert asker.machine.reached == 0


def test_a_trusted_block_of_another_task_is_refused() -> None:
    chain, other = Chain(task()), Chain(task(seed=2))
    other.extend(rounds=3)
    asker = trusted_asker(other, 3)
    asker.chain = other
    asker.machine = Applicant(
        manifest=chain.manifest,
        peer=JOINER,
        credential=asker.credential,
        initial=INITIAL,
        trusted=TrustedBlock(round=3, block=other.certificates[2].block.hash),
        verify=verify,
    )
    assert asker.follow() == [Refused(rule="trusted")]


def test_a_trusted_block_is_read_from_a_line() -> None:
    assert parse_trusted_block(f"12:{bytes(32).hex()}") == TrustedBlock(round=12, block=bytes(32))


@given(st.one_of(st.text(max_size=80), st.integers().map(lambda number: f"{number}:{bytes(31).hex()}")))
def test_another_line_is_no_trusted_block(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^not .*round"):
        parse_trusted_block(text)


EVENTS = st.one_of(
    st.tuples(st.sampled_from(["connect", "lose", "fail", "tick"]), st.integers(0, 4), st.just(0)),
    st.tuples(st.sampled_from(["gossip", "answer"]), st.integers(0, 4), st.integers(0, 30)),
)


@given(st.lists(EVENTS, max_size=40), st.integers(1, 30))
def test_in_any_order_it_comes_to_the_members_of_the_chain(
    events: list[tuple[str, int, int]], at: int
) -> None:
    """Members 3 and 4 lie: their certificates are those of a fork without a quorum."""
    chain, fork = Chain(task()), Chain(task(), salt=b"fork")
    chain.extend(joining(JOINER), rounds=at)
    chain.extend(rounds=30 - at)
    for _ in range(30):
        forged = fork.make(voters=2)
        fork.certificates.append(forged)
        fork.head = fork.head.after(forged)
    asker = Asker(chain)
    for what, number, start in events:
        known = chain if number < 3 else fork
        match what:
            case "connect":
                asker.tell(PeerConnected(peer=peer(number)))
            case "lose":
                asker.tell(PeerLost(peer=peer(number)))
            case "fail":
                asker.tell(HistoryFailed())
            case "tick":
                asker.tick()
            case "gossip":
                asker.gossip(known.certificates[min(start, 29)], number)
            case "answer":
                asker.answer(*known.after(start + 1, BATCH), number=number)
        assert asker.machine.reached <= at
        assert asker.machine.membership.size == 4 + (asker.machine.reached == at)
    if asker.machine.stage is not Stage.ADMITTED:
        asker.tell(PeerLost(peer=peer(0)))
        asker.tell(HistoryFailed())
        asker.follow()
    admitted = one(asker.actions, Admitted)
    assert admitted.history == tuple(chain.certificates[:at])
