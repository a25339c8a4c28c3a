"""The commits, reveals and updates of one round, and the blocks made of them."""

from __future__ import annotations

from hashlib import sha256

from federated.rounds.actions import Aggregate, Fetch
from federated.rounds.assembly import MAX_AGGREGATES, Assembly
from federated.rounds.collection import MAX_FETCHES, Collection, Status
from federated.rounds.committee import Membership, numbers_in
from federated.rounds.events import Aggregated, AggregateFailed, Input, Inputs, Screened
from federated.rounds.inputs import inputs_root
from federated.rounds.messages import Commit, Model, Reveal, commitment
from federated.rounds.past import Base
from tests.federated.rounds.table import BASE, TASK, committee

LIMIT = 1000
MEMBERS = Membership(TASK, committee(4).members)
PEERS = MEMBERS.members
ALL = 0b1111
INITIAL = Model(digest=BASE, root=BASE, size=1)


def reveal(label: int, size: int = 10, examples: int = 1) -> Reveal:
    root = sha256(bytes([label])).digest()
    return Reveal(round=1, root=root, size=size, nonce=bytes([label]) * 32, examples=examples)


def commit(number: int, what: Reveal) -> Commit:
    return Commit(round=1, commitment=commitment(PEERS[number], TASK, BASE, what))


def collection(*numbers: int) -> Collection:
    """A collection in which these members have committed and revealed."""
    made = Collection(
        membership=MEMBERS, round_number=1, bases=(Base(digest=BASE, participants=0),), max_update=LIMIT
    )
    for number in numbers:
        assert made.add_commit(number, commit(number, reveal(number))) is None
        assert made.add_reveal(number, reveal(number)) is None
    return made


def fetched(made: Collection, *numbers: int) -> None:
    made.fetches(0, ALL, 0, retry=False)
    for number in numbers:
        made.fetched(reveal(number).root)


def test_an_update_goes_from_commit_to_valid() -> None:
    made = collection()
    made.add_commit(1, commit(1, reveal(1)))
    assert (made.committed, made.revealed) == (0b10, 0)
    made.add_reveal(1, reveal(1))
    assert made.revealed == 0b10
    assert made.status(1) is None
    live = 0b110
    [fetch] = made.fetches(live, ALL, 0, retry=False)
    assert fetch == Fetch(round=1, root=reveal(1).root, size=10, holders=(PEERS[1], PEERS[2]))
    assert made.fetches(live, ALL, 0, retry=True) == []
    assert made.status(1) is Status.FETCHING
    [validate] = made.fetched(reveal(1).root)
    assert validate.input == Input(peer=PEERS[1], root=reveal(1).root, size=10, examples=1)
    assert made.fetched(reveal(1).root) == []
    made.validated(reveal(1).root, None)
    assert numbers_in(made.with_status(Status.VALID)) == made.candidates() == [1]
    assert made.refused() == []


def test_an_owner_that_is_gone_is_asked_last() -> None:
    [fetch] = collection(1).fetches(0b1100, ALL, 0, retry=False)
    assert fetch.holders == (PEERS[2], PEERS[3], PEERS[1])


def test_results_that_nobody_waits_for_are_ignored() -> None:
    made = collection(1)
    assert made.fetched(reveal(1).root) == []
    made.failed(reveal(1).root)
    made.validated(reveal(1).root, "norm")
    assert made.status(1) is None
    fetched(made, 1)
    made.failed(reveal(1).root)
    assert made.status(1) is Status.HERE


def test_a_reveal_that_overtakes_its_commit_waits_for_it() -> None:
    made = collection()
    assert made.add_reveal(1, reveal(1)) is None
    assert made.add_reveal(1, reveal(2)) is None
    assert made.revealed == 0
    assert made.add_commit(1, commit(1, reveal(1))) is None
    assert made.revealed == 0b10
    made.add_reveal(2, reveal(2))
    assert made.add_commit(2, commit(1, reveal(2))) == "commitment"


def test_the_first_commit_and_reveal_count() -> None:
    made = collection(1)
    assert made.add_commit(1, commit(1, reveal(1))) is None
    assert made.add_commit(1, commit(1, reveal(2))) == "twice"
    assert made.add_reveal(1, reveal(1)) is None
    assert made.add_reveal(1, reveal(2)) == "twice"
    assert made.inputs([1])[0].root == reveal(1).root


def test_a_reveal_that_does_not_match_may_be_followed_by_one_that_does() -> None:
    made = collection()
    made.add_commit(1, commit(1, reveal(1)))
    assert made.add_reveal(1, reveal(2)) == "commitment"
    assert made.add_reveal(1, reveal(1)) is None
    assert made.revealed == 0b10


def test_a_late_commit_never_enters_our_candidates_but_can_be_fetched_for_a_check() -> None:
    made = collection(1)
    made.close()
    made.add_commit(2, commit(2, reveal(2)))
    made.add_reveal(2, reveal(2))
    assert made.committed == made.revealed == 0b10
    assert [fetch.root for fetch in made.fetches(0, ALL, 0, retry=False)] == [reveal(1).root]
    assert [fetch.root for fetch in made.fetches(0, ALL, 0b100, retry=False)] == [reveal(2).root]
    for number in (1, 2):
        made.fetched(reveal(number).root)
        made.validated(reveal(number).root, None)
    assert made.candidates() == [1]
    assert made.status(2) is Status.VALID
    assert {item.peer for item in made.inputs([1, 2, 3])} == {PEERS[1], PEERS[2]}


def test_a_failed_update_is_fetched_again_a_few_times_only() -> None:
    made = collection(1)
    attempts = len(made.fetches(0, ALL, 0, retry=False))
    made.failed(reveal(1).root)
    assert made.fetches(0, ALL, 0, retry=False) == []
    for _ in range(2 * MAX_FETCHES):
        attempts += len(made.fetches(0, ALL, 0, retry=True))
        made.failed(reveal(1).root)
    assert attempts == MAX_FETCHES
    assert made.status(1) is Status.FAILED


def test_a_refused_update_is_named_with_its_rule() -> None:
    made = collection(1, 2)
    fetched(made, 1, 2)
    made.validated(reveal(1).root, "finite")
    made.validated(reveal(2).root, None)
    assert made.refused() == [(1, "finite")]
    assert made.with_status(Status.REFUSED) == 0b10
    assert made.candidates() == [2]


def test_an_update_over_the_limit_or_of_another_size_than_its_twin_is_refused() -> None:
    made = collection(1)
    huge, twin = reveal(2, size=LIMIT + 1), reveal(1, size=11)
    made.add_commit(2, commit(2, huge))
    assert made.add_reveal(2, huge) == "size"
    made.add_commit(3, commit(3, twin))
    assert made.add_reveal(3, twin) is None
    assert len(made.fetches(0, ALL, 0, retry=False)) == 1
    assert made.refused() == [(2, "size"), (3, "size")]
    assert made.status(3) is Status.REFUSED


def test_the_same_update_counts_for_the_first_of_its_members() -> None:
    made = collection(2)
    made.add_commit(1, commit(1, reveal(2)))
    made.add_reveal(1, reveal(2))
    assert len(made.fetches(0, ALL, 0, retry=False)) == 1
    made.fetched(reveal(2).root)
    made.validated(reveal(2).root, None)
    assert made.candidates() == [1]
    assert made.refused() == [(2, "duplicate")]


# from updates to a block


def inputs(*numbers: int) -> Inputs:
    return collection(*numbers).inputs(numbers)


def assembly(minimum: int = 2) -> Assembly:
    return Assembly(membership=MEMBERS, parent=TASK, round_number=1, base=INITIAL, minimum=minimum)


def model(label: int) -> Model:
    return Model(digest=bytes([label]) * 32, root=bytes([label]) * 32, size=9)


def test_a_block_is_drafted_once_its_model_is_known() -> None:
    made, three = assembly(), inputs(0, 2, 3)
    assert made.ask(three) == [Aggregate(round=1, inputs=three)]
    assert made.ask(three) == []
    assert made.draft(three) is None
    made.handle(Aggregated(round=1, inputs=three, model=model(1)))
    draft = made.draft(three)
    assert draft is not None
    assert draft.model == model(1)
    assert (draft.participants, draft.examples) == (0b1101, 3)
    assert draft.inputs == inputs_root(three, MEMBERS)
    assert made.has_model(draft)
    assert made.has_model(made.skip())
    other = assembly()
    assert not other.has_model(draft)


def test_too_few_updates_or_ones_that_make_no_model_leave_it_as_it_is() -> None:
    made = assembly()
    assert made.ask(inputs(1)) == []
    assert made.draft(inputs(1)) == made.skip()
    assert made.skip().model == INITIAL
    assert made.skip().skipped
    made.ask(inputs(1, 2))
    made.handle(AggregateFailed(round=1, inputs=inputs(1, 2)))
    assert made.draft(inputs(1, 2)) == made.skip()


def test_what_screening_refuses_is_left_out_until_nothing_more_is() -> None:
    made, four, three, two = assembly(), inputs(0, 1, 2, 3), inputs(0, 1, 2), inputs(0, 1)
    made.ask(four)
    made.handle(Screened(round=1, inputs=four, refused=((reveal(3).root, "norm"),)))
    assert made.ask(four) == [Aggregate(round=1, inputs=three)]
    made.handle(Screened(round=1, inputs=three, refused=((reveal(2).root, "direction"),)))
    assert made.ask(four) == [Aggregate(round=1, inputs=two)]
    made.handle(Aggregated(round=1, inputs=two, model=model(1)))
    assert made.draft(four) == made.draft(two) != made.skip()
    assert made.refused(four) == [(3, "norm"), (2, "direction")]


def test_screening_that_refuses_nothing_of_the_set_is_a_failure_and_no_loop() -> None:
    made, two = assembly(), inputs(0, 1)
    made.ask(two)
    made.handle(Screened(round=1, inputs=two, refused=((reveal(3).root, "norm"),)))
    assert made.draft(two) == made.skip()


def test_what_was_not_asked_for_is_ignored_and_no_more_than_so_many_sets_are_aggregated() -> None:
    made = assembly(minimum=1)
    made.handle(Aggregated(round=1, inputs=inputs(1), model=model(1)))
    assert made.draft(inputs(1)) is None
    asked = 0
    for label in range(2 * MAX_AGGREGATES):
        item = Input(peer=PEERS[0], root=bytes([label]) * 32, size=1, examples=1)
        asked += len(made.ask((item,)))
    assert asked == MAX_AGGREGATES
