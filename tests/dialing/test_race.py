"""Attempts that race: a virtual clock, and attempts that are written down as a delay and an end."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from p2p.address import parse_address
from p2p.dialing.plan import DialPlan
from p2p.dialing.race import Race
from p2p.errors import ConnectionLost
from tests.byte_streams import cancel_at_each_await

FAST, SLOW, DEAD = (parse_address(f"/ip4/9.9.9.{number}/tcp/1") for number in (1, 2, 3))


class Prize:
    """What an attempt makes."""

    def __init__(self, address):
        self.address = address
        self.closed = False

    async def aclose(self):
        self.closed = True
        await trio.lowlevel.checkpoint()


class Course:
    """Attempts that take as long as they are told, and remember what became of them."""

    def __init__(self, **seconds):
        self.seconds = {FAST: 0.1, SLOW: 5.0, DEAD: None}
        self.started = {}
        self.prizes = []
        self.cancelled = []

    async def attempt(self, address):
        self.started[address] = trio.current_time()
        try:
            delay = self.seconds[address]
            if delay is None:
                await trio.lowlevel.checkpoint()
                raise ConnectionLost(f"{address}: refused")
            await trio.sleep(delay)
        except trio.Cancelled:
            self.cancelled.append(address)
            raise
        self.prizes.append(Prize(address))
        return self.prizes[-1]


async def nothing_to_search():
    await trio.lowlevel.checkpoint()


def race_of(course, *addresses):
    plan = DialPlan()
    plan.add(addresses)
    return Race(plan, course.attempt)


async def test_the_first_that_succeeds_wins_and_the_others_are_cancelled(autojump_clock):
    course = Course()
    start = trio.current_time()
    won = await race_of(course, SLOW, FAST).run(nothing_to_search)
    assert won == (FAST, course.prizes[0])
    assert course.cancelled == [SLOW]
    assert trio.current_time() - start == pytest.approx(0.35)


async def test_a_failure_makes_way_at_once(autojump_clock):
    course = Course()
    start = trio.current_time()
    await race_of(course, DEAD, FAST).run(nothing_to_search)
    assert course.started[FAST] == start


async def test_nobody_wins_where_all_fail(autojump_clock):
    assert await race_of(Course(), DEAD).run(nothing_to_search) is None
    assert await race_of(Course()).run(nothing_to_search) is None


async def test_addresses_may_come_while_the_race_runs(autojump_clock):
    course = Course()
    race = race_of(course, DEAD)

    async def search():
        await trio.sleep(3)
        race.add([FAST])
        await trio.sleep(30)

    assert await race.run(search) == (FAST, course.prizes[0])
    assert course.started[FAST] == 3


async def test_of_two_that_arrive_together_one_is_closed(autojump_clock):
    course = Course()
    course.seconds = {FAST: 0.5, SLOW: 0.25}
    won = await race_of(course, FAST, SLOW).run(nothing_to_search)
    assert won is not None
    for prize in course.prizes:
        assert prize.closed == (prize is not won[1])


async def test_a_bug_in_an_attempt_leaves_as_itself(autojump_clock):
    async def broken(address):
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    plan = DialPlan()
    plan.add([FAST])
    with pytest.raises(ZeroDivisionError):
        await Race(plan, broken).run(nothing_to_search)


async def test_a_cancelled_race_leaves_nothing_open(autojump_clock):
    @asynccontextmanager
    async def world():
        course, before = Course(), trio.lowlevel.current_statistics().tasks_living
        course.seconds = {FAST: 0.1, SLOW: 0.1, DEAD: None}
        results = []

        async def operation():
            results.append(await race_of(course, DEAD, SLOW, FAST).run(nothing_to_search))

        yield operation
        taken = [won[1] for won in results]
        assert [prize for prize in course.prizes if not prize.closed] == taken
        assert trio.lowlevel.current_statistics().tasks_living == before

    assert await cancel_at_each_await(world) >= 2


async def test_a_winner_that_comes_with_the_cancellation_is_closed(autojump_clock):
    prize = Prize(FAST)
    with trio.CancelScope() as scope:

        async def attempt(address):
            await trio.sleep(0.1)
            scope.cancel()
            return prize

        plan = DialPlan()
        plan.add([FAST])
        await Race(plan, attempt).run(nothing_to_search)
    assert scope.cancelled_caught
    assert prize.closed
