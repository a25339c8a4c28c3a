"""The three rounds of a step, one member after the other, without any network; and integers for floats."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.errors import AggregationError, CodecError
from federated.parameters import Parameters, schema_of
from federated.rounds.committee import Membership
from federated.sums.documents import CHECKS, Attestation, Opening
from federated.sums.field import PRIME, Elements, combine, weights
from federated.sums.grid import Grid
from federated.sums.holders import draw_holders
from federated.sums.sets import Sums, settle
from federated.sums.steps import (
    Opened,
    Step,
    Terms,
    add_share,
    checks_of,
    deal,
    ephemeral_key,
    factors,
    largest_document,
    open_share,
    open_sums,
    step_of,
)
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.support import key_number

Shares = list[dict[int, Elements]]

TASK, BLOCK = bytes(range(32)), bytes([9]) * 32
REACH = 4.0


def model(value: float) -> Parameters:
    return {"w": np.array([value, -value, 0.125], np.float32), "n": np.array(1, np.int64)}


class Town:
    """The members of a task with all keys, who deal `deltas`."""

    def __init__(self, deltas: list[Parameters], count: int = 9) -> None:
        self.keys: dict[PeerId, KeyPair] = {}
        for number in range(1, len(deltas) + 1):
            pair = key_number(number)
            self.keys[PeerId.from_public_key(pair.public)] = pair
        self.dealers = tuple(sorted(self.keys))
        holders = draw_holders(Membership(TASK, self.dealers), 4, BLOCK, count)
        assert holders is not None
        self.grid = Grid(schema_of(deltas[0]), len(deltas), REACH)
        self.terms = Terms(task=TASK, round=4, holders=holders, grid=self.grid)
        self.sealed = [
            list(deal(self.terms, dealer, delta, bytes([at]) * 32))
            for at, (dealer, delta) in enumerate(zip(self.dealers, deltas, strict=True))
        ]

    def share(self, number: int, place: int) -> Elements:
        holder = self.terms.holders.peers[place]
        sealed = self.sealed[number][place]
        return open_share(self.terms, self.dealers[number], self.keys[holder], holder, sealed)

    def shares(self) -> Shares:
        """By dealer and holder; without those that are none."""
        found: Shares = [{} for _ in self.dealers]
        for number, place in itertools.product(range(len(self.dealers)), self.places):
            with suppress(CodecError):
                found[number][place] = self.share(number, place)
        return found

    @property
    def places(self) -> range:
        return range(len(self.terms.holders.peers))

    def attest(self, shares: Shares) -> dict[int, Attestation]:
        counts = factors(self.terms, BLOCK)
        return {
            place: Attestation(
                {at: checks_of(held[place], counts) for at, held in enumerate(shares) if place in held}
            )
            for place in self.places
        }

    def settle(
        self, group: int | None = None, attestations: dict[int, Attestation] | None = None
    ) -> Sums | None:
        found = self.attest(self.shares()) if attestations is None else attestations
        return settle(self.terms.holders, self.dealers, found, minimum=3, group=group, seed=bytes([7]) * 32)

    def sums(self, group: int | None = None) -> Sums:
        found = self.settle(group)
        assert found is not None
        return found

    def open(self, sums: Sums, shares: Shares | None = None) -> dict[int, Opening]:
        shares = self.shares() if shares is None else shares
        openings = {}
        for place in sums.openers:
            totals = []
            for group in sums.groups:
                total = np.zeros(self.grid.size, np.uint32)
                for number in group:
                    add_share(total, shares[number][place])
                totals.append(total)
            openings[place] = Opening(tuple(totals))
        return openings


def assert_mean(found: Parameters, deltas: list[Parameters], steps: int) -> None:
    for name, array in found.items():
        expected = np.mean([np.clip(delta[name].astype(float), -REACH, REACH) for delta in deltas], axis=0)
        assert array.dtype == deltas[0][name].dtype
        assert np.abs(array - expected).max() <= REACH / steps + 1e-6


DELTAS = [model(value) for value in (1.0, 2.0, -3.0, 0.5, 0.25, 7.0)]  # the last one is out of range


def test_the_mean_of_what_is_dealt_is_found() -> None:
    town = Town(DELTAS)
    sums = town.sums()
    opened = open_sums(town.terms, sums, town.open(sums))
    assert sums.groups == ((0, 1, 2, 3, 4, 5),)
    assert opened.liars == ()
    assert_mean(opened.means[0][1], DELTAS, town.grid.steps)


def test_each_group_has_a_mean_of_its_own() -> None:
    town = Town(DELTAS)
    sums = town.sums(group=3)
    opened = open_sums(town.terms, sums, town.open(sums))
    assert len(opened.means) == 2
    for number, mean in opened.means:
        assert_mean(mean, [DELTAS[at] for at in sums.groups[number]], town.grid.steps)


def test_a_holder_that_opens_something_else_is_named_and_does_no_harm() -> None:
    town = Town(DELTAS)
    sums = town.sums(group=3)
    right, openings = open_sums(town.terms, sums, town.open(sums)), town.open(sums)
    openings[2].sums[1][-1] ^= 5
    opened = open_sums(town.terms, sums, openings)
    assert opened.liars == (2,)
    for (_, mean), (_, other) in zip(opened.means, right.means, strict=True):
        assert all((mean[name] == other[name]).all() for name in mean)


def test_nothing_is_opened_by_fewer_than_are_sure_to_outvote_the_liars() -> None:
    town = Town(DELTAS)
    sums = town.sums()
    openings = town.open(sums)
    assert len(openings) == 6
    del openings[0]
    assert open_sums(town.terms, sums, openings).means
    del openings[1]
    assert open_sums(town.terms, sums, openings) == Opened((), ())
    two_lie = town.open(sums)
    two_lie[0].sums[0][0] ^= 1
    two_lie[1].sums[0][0] ^= 2
    two_lie[2].sums[0][0] ^= 3
    assert open_sums(town.terms, sums, two_lie) == Opened((), ())


def test_a_dealer_whose_shares_are_no_shares_is_left_out() -> None:
    town, other = Town(DELTAS), Town([*DELTAS[:2], model(-2.0), *DELTAS[3:]])
    town.sealed[2][:3] = other.sealed[2][:3]  # half of the holders get those of another polynomial
    sums = town.sums()
    assert sums.groups == ((0, 1, 3, 4, 5),)
    opened = open_sums(town.terms, sums, town.open(sums))
    assert opened.liars == ()
    assert_mean(opened.means[0][1], [*DELTAS[:2], *DELTAS[3:]], town.grid.steps)


def test_a_share_that_cannot_be_opened_leaves_its_dealing_out() -> None:
    town = Town(DELTAS)
    town.sealed[4][1] = town.sealed[4][2]  # sealed to another one
    sums = town.sums()
    assert 4 not in sums.groups[0]
    assert len(sums.openers) == 6


def test_a_share_of_another_size_is_none() -> None:
    town = Town(DELTAS)
    town.sealed[0][0] += b"\0"
    with pytest.raises(CodecError, match="not the"):
        town.share(0, 0)


def test_nothing_dealt_is_dealt_in_the_same_way_twice() -> None:
    """Shares of one update by two keys have nothing in common, nor have ephemeral keys."""
    town = Town(DELTAS)
    again = list(deal(town.terms, town.dealers[0], DELTAS[0], bytes([77]) * 32))
    assert not set(again) & set(town.sealed[0])
    assert list(deal(town.terms, town.dealers[0], DELTAS[0], bytes(32))) == town.sealed[0]  # all by the key
    assert len({sealed[:32] for dealt in (*town.sealed, again) for sealed in dealt}) == 7 * 6
    assert ephemeral_key(bytes(32), 0) != ephemeral_key(bytes(32), 1)


def test_as_many_holders_as_may_be_bad_do_not_know_an_update() -> None:
    """Their shares are those of a polynomial of the full degree: one more is needed for every value."""
    town = Town([*DELTAS, *DELTAS])
    holders, shares = town.terms.holders, [town.share(0, place) for place in town.places]
    assert holders.faults == 2
    for few in itertools.combinations(town.places, holders.faults):
        points = [holders.points[place] for place in few]
        told = combine([shares[place] for place in few], weights(points, 0))
        assert (told[:-CHECKS] != town.grid.elements(DELTAS[0])).all()
    points, base = holders.points[: holders.faults + 1], shares[: holders.faults + 1]
    assert (combine(base, weights(points, 0))[:-CHECKS] == town.grid.elements(DELTAS[0])).all()


def test_a_share_is_for_its_step_alone() -> None:
    town = Town(DELTAS)
    town.terms = replace(town.terms, round=7)
    with pytest.raises(CodecError, match="not sealed to this peer for this purpose"):
        town.share(0, 0)


def test_the_checks_of_a_share_do_not_tell_of_the_update_beside_it() -> None:
    """The same updates with other random elements have other checks, and those of the share are masked."""
    town, counts = Town(DELTAS), None
    counts = factors(town.terms, BLOCK)
    share = town.share(0, 0)
    plain = share.copy()
    plain[-CHECKS:] = 0
    masks = [int(mask) for mask in share[-CHECKS:]]
    for one, other, mask in zip(checks_of(share, counts), checks_of(plain, counts), masks, strict=True):
        assert one == (other + mask) % PRIME
    assert all(masks)


def test_factors_are_those_of_the_block() -> None:
    town = Town(DELTAS)
    first, again, other = (factors(town.terms, block) for block in (BLOCK, BLOCK, bytes(32)))
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
    assert not (first[0] == first[1]).all()


def test_three_rounds_are_a_step() -> None:
    assert [step_of(number) for number in (1, 2, 3, 4, 9)] == [*Step, Step.DEAL, Step.OPEN]


def test_the_largest_document_is_as_large_as_it_says() -> None:
    town = Town(DELTAS)
    author = town.dealers[0]
    head = len(author.raw) + 18
    assert largest_document(Grid(schema_of(model(0)), 6, 1.0), author, 6, 100) == head + 100 * 4 * 4
    assert largest_document(town.grid, author, 6, 1) == head + 6 * 32


NINE = [model(value / 2) for value in range(9)]
OTHERS = [model(-value / 4) for value in range(9)]


@cache
def two_towns() -> tuple[Town, Shares, Shares]:
    """Nine members who all hold, their shares, and those of other updates that they could deal."""
    town, other = Town(NINE), Town(OTHERS)
    return town, town.shares(), other.shares()


@settings(max_examples=60)
@given(st.data())
def test_what_is_opened_is_the_mean_of_what_was_dealt_whatever_the_bad_ones_do(data: st.DataObject) -> None:
    """Two of nine holders are bad, and any dealers; with honest dealers something is opened."""
    (town, honest, others), every = two_towns(), range(9)
    bad_holders = data.draw(st.lists(st.sampled_from(every), max_size=2, unique=True))
    bad_dealers = data.draw(st.lists(st.sampled_from(every), max_size=4, unique=True))
    shares = [dict(held) for held in honest]
    for number, place in itertools.product(bad_dealers, every):
        deed = data.draw(st.sampled_from(["right", "other", "none"]))
        if deed == "other":
            shares[number][place] = others[number][place]
        elif deed == "none":
            del shares[number][place]
    attestations = town.attest(shares)
    for place in bad_holders:
        checks = {number: (1, 2) for number in every if data.draw(st.booleans())}
        attestations[place] = Attestation({**attestations[place].checks, **checks})
    sums = town.settle(attestations=attestations)
    assert sums is not None or bad_dealers
    if sums is None:
        return
    assert not set(every) - set(bad_dealers) - set(sums.groups[0]) or bad_holders or bad_dealers
    openings = town.open(sums, [honest[at] | held for at, held in enumerate(shares)])
    for place in bad_holders:
        if place in openings and data.draw(st.booleans()):
            del openings[place]
        elif place in openings:
            openings[place].sums[0][data.draw(st.integers(0, 3))] ^= data.draw(st.integers(0, 7))
    opened = open_sums(town.terms, sums, openings)
    assert opened.means or bad_dealers
    witness = next(place for place in sums.openers if place not in bad_holders)
    dealt = [
        NINE[at] if (shares[at][witness] == honest[at][witness]).all() else OTHERS[at]
        for at in sums.groups[0]
    ]
    for _, mean in opened.means:
        assert_mean(mean, dealt, town.grid.steps)


# Floats and integers


@settings(max_examples=60)
@given(
    rows=st.lists(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), min_size=1, max_size=20),
    reach=st.sampled_from([0.001, 1.0, 4.0, 1000.0]),
    members=st.integers(20, 64),
)
def test_sums_of_elements_are_the_mean_as_exactly_as_the_grid_is(
    rows: list[list[float]], reach: float, members: int
) -> None:
    grid = Grid(schema_of({"w": np.zeros(3)}), members, reach)
    total = np.zeros(3, np.uint32)
    for row in rows:
        add_share(total, grid.elements({"w": np.array(row)}))
    expected = np.mean([np.clip(row, -reach, reach) for row in rows], axis=0)
    assert np.abs(grid.mean(total, len(rows))["w"] - expected).max() <= reach / grid.steps


def test_all_members_at_the_end_of_the_range_are_not_beyond_the_prime() -> None:
    for members in (5, 21, 64):
        grid = Grid(schema_of({"w": np.zeros(2)}), members, 1.0)
        total = np.zeros(2, np.uint32)
        for _ in range(members):
            add_share(total, grid.elements({"w": np.array([1.0, -1.0])}))
        assert grid.mean(total, members)["w"].tolist() == [1.0, -1.0]


def test_a_sum_that_no_honest_members_make_ends_at_the_range() -> None:
    grid = Grid(schema_of({"w": np.zeros(2)}), 10, 2.0)
    total = np.array([PRIME // 2, PRIME // 2 + 1], np.uint32)
    assert grid.mean(total, 4)["w"].tolist() == [2.0, -2.0]


def test_a_range_that_does_not_fit_is_told() -> None:
    grid = Grid(schema_of({"w": np.zeros(1, np.int8)}), 5, 1000.0)
    with pytest.raises(AggregationError, match="does not fit int8"):
        grid.mean(grid.elements({"w": np.array([1000.0])}), 1)


def test_a_model_without_values_has_a_mean_too() -> None:
    grid = Grid((), 5, 1.0)
    assert grid.elements({}).size == grid.size == 0
    assert grid.mean(np.zeros(0, np.uint32), 3) == {}
