"""Who holds, what is summed up and by whom: honest members are in, and everybody comes to the same."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.rounds.committee import Membership
from federated.sums.documents import CHECKS, Attestation
from federated.sums.field import PRIME
from federated.sums.holders import Holders, draw_holders
from federated.sums.sets import Sums, good_shares, rectangle, settle
from tests.federated.samples import peer

TASK = bytes(range(32))


def holders_of(count: int) -> Holders:
    return Holders(tuple(peer(number) for number in range(count)))


class Table:
    """The checks of honest dealers at all holders, which may then be spoiled."""

    def __init__(self, holders: Holders, dealings: int, seed: int = 0) -> None:
        rng = random.Random(seed)
        self.checks: dict[int, dict[int, tuple[int, ...]]] = {
            place: {} for place in range(len(holders.peers))
        }
        for number in range(dealings):
            rows = [[rng.randrange(PRIME) for _ in range(holders.faults + 1)] for _ in range(CHECKS)]
            for place, found in self.checks.items():
                point = holders.points[place]
                found[number] = tuple(sum(c * point**k for k, c in enumerate(row)) % PRIME for row in rows)

    def spoil(self, place: int, number: int, check: int = 0) -> None:
        values = list(self.checks[place][number])
        values[check] = (values[check] + 1) % PRIME
        self.checks[place][number] = tuple(values)

    @property
    def attestations(self) -> Mapping[int, Attestation]:
        return {place: Attestation(found) for place, found in self.checks.items()}


def test_shares_that_are_none_are_found_at_their_holder() -> None:
    holders = holders_of(9)
    table = Table(holders, 3)
    table.spoil(2, 0)
    table.spoil(7, 1, CHECKS - 1)
    del table.checks[4][2]
    good = good_shares(holders, table.attestations, 3)
    assert {place: held for place, held in good.items() if held != 0b111} == {2: 0b110, 7: 0b101, 4: 0b011}


def test_a_dealing_that_is_none_is_nobodys() -> None:
    holders = holders_of(5)
    table = Table(holders, 2)
    for place in (0, 1):  # more than one of five: nothing is as near
        table.spoil(place, 0)
    assert set(good_shares(holders, table.attestations, 2).values()) == {0b10}


def test_a_dealing_that_too_few_attest_is_nobodys() -> None:
    holders = holders_of(5)
    table = Table(holders, 2)
    for place in (0, 1):
        del table.checks[place][0]
    assert set(good_shares(holders, table.attestations, 2).values()) == {0b10}


@given(
    faults=st.integers(1, 3),
    dealings=st.integers(3, 12),
    seed=st.integers(0, 1 << 32),
    data=st.data(),
)
def test_honest_dealers_and_holders_are_found_whatever_the_others_say(
    faults: int, dealings: int, seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    holders = holders_of(4 * faults + 1)
    table = Table(holders, dealings, seed)
    places, numbers = range(len(holders.peers)), range(dealings)
    bad_holders = rng.sample(places, data.draw(st.integers(0, faults)))
    bad_dealers = rng.sample(numbers, data.draw(st.integers(0, dealings // 3)))
    for place, number in itertools.product(places, numbers):
        if place in bad_holders or number in bad_dealers:
            deed = data.draw(st.sampled_from(["good", "none", "wrong"]))
            if deed == "none":
                del table.checks[place][number]
            elif deed == "wrong":
                table.spoil(place, number, rng.randrange(CHECKS))
    good = good_shares(holders, table.attestations, dealings)
    for place, number in itertools.product(places, numbers):
        if place not in bad_holders and number not in bad_dealers:
            assert good[place] >> number & 1
    common, openers = rectangle(good, holders.least)
    assert len(openers) >= holders.least
    assert all(good[place] & common == common for place in openers)
    bad = len(bad_holders) + len(bad_dealers)
    assert common.bit_count() + len(openers) >= dealings + len(places) - bad
    again = rectangle(dict(sorted(good.items())), holders.least)
    assert again == (common, openers)


@given(st.dictionaries(st.integers(0, 8), st.integers(0, 63), min_size=1), st.integers(1, 6))
def test_no_rectangle_is_larger(shares: dict[int, int], least: int) -> None:
    shares = dict(sorted(shares.items()))
    common, openers = rectangle(shares, least)
    best = (0, 0)
    for count in range(least, len(shares) + 1):
        for chosen in itertools.combinations(shares, count):
            held = 63
            for place in chosen:
                held &= shares[place]
            best = max(best, (held.bit_count() + count, count))
    if len(shares) < least:
        assert (common, openers) == (0, ())
    else:
        assert (common.bit_count() + len(openers), len(openers)) == best


def test_a_bad_dealer_is_left_out_rather_than_the_holder_it_cheats() -> None:
    assert rectangle({0: 0b110, 1: 0b111, 2: 0b111}, 2) == (0b110, (0, 1, 2))
    assert rectangle({0: 0b100, 1: 0b111, 2: 0b111}, 2) == (0b111, (1, 2))


def settled(
    group: int | None, minimum: int = 3, seed: bytes = b"", gone: tuple[int, ...] = ()
) -> Sums | None:
    holders, dealers = holders_of(5), [peer(number) for number in range(10)]
    table = Table(holders, 10)
    for number in gone:
        for found in table.checks.values():
            del found[number]
    return settle(holders, dealers, table.attestations, minimum=minimum, group=group, seed=seed)


def test_all_dealings_are_one_sum_where_there_are_no_groups() -> None:
    sums = settled(None)
    assert sums is not None
    assert sums.groups == (tuple(range(10)),)
    assert sums.openers == tuple(range(5))


@pytest.mark.parametrize(("gone", "sizes"), [((), [3, 3, 4]), ((0, 4), [4, 4]), ((0, 1, 2, 3, 4, 5, 6), [3])])
def test_groups_have_at_least_as_many_members_as_they_should(gone: tuple[int, ...], sizes: list[int]) -> None:
    sums = settled(3, gone=gone)
    groups = sums.groups
    assert sorted(map(len, groups)) == sizes
    assert sorted(number for group in groups for number in group) == [
        at for at in range(10) if at not in gone
    ]


def test_groups_are_dealt_out_by_a_seed() -> None:
    assert settled(3, seed=b"1") == settled(3, seed=b"1") != settled(3, seed=b"2")


def test_fewer_dealings_than_a_sum_must_have_are_not_summed_up() -> None:
    assert settled(None, minimum=11) is None
    assert settled(None, minimum=10) is not None
    assert settled(None, minimum=3, gone=tuple(range(8))) is None
    assert settled(4, minimum=3, gone=tuple(range(7))) is None


def members(count: int) -> Membership:
    return Membership(TASK, [peer(number) for number in range(count)])


def test_holders_are_drawn_anew_in_each_step() -> None:
    drawn = [draw_holders(members(30), number, bytes(32), 9) for number in (1, 1, 4)]
    other = draw_holders(members(30), 1, bytes([1]) * 32, 9)
    assert drawn[0] == drawn[1]
    assert len({found.peers for found in (drawn[0], drawn[2], other) if found is not None}) == 3
    assert drawn[0] is not None
    assert len(set(drawn[0].peers)) == 9
    assert (drawn[0].faults, drawn[0].least) == (2, 7)


def test_every_member_holds_where_they_are_few_and_nobody_where_they_are_too_few() -> None:
    found = draw_holders(members(6), 1, bytes(32), 9)
    assert found is not None
    assert set(found.peers) == {peer(number) for number in range(6)}
    assert found.place(found.peers[3]) == 3
    assert found.place(peer(6)) is None
    assert draw_holders(members(4), 1, bytes(32), 9) is None


def test_who_is_gone_does_not_hold() -> None:
    all_of_them = members(7)
    left = Membership(TASK, all_of_them.members, active=all_of_them.active & ~1)
    found = draw_holders(left, 1, bytes(32), 9)
    assert found is not None
    assert all_of_them.members[0] not in found.peers
    assert len(found.peers) == 6
