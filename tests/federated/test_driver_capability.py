"""Members that measure themselves, one of which is too slow to aggregate."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock

from federated import driver
from federated.pace import Pace
from federated.reports import Report
from p2p.blobs import Blobs
from tests.federated.lab import (
    Lab,
    Member,
    ModelledCompute,
    assert_agreed,
    open_lab,
    peer_number,
    tiny_manifest,
)

WHO: ContextVar[int] = ContextVar("WHO")  # the member that a task belongs to
SLOW = 6


class PacedCompute(ModelledCompute):
    """As on a real machine, where it is worth while to measure."""

    def __init__(self) -> None:
        self.pace = Pace()


async def start(lab: Lab, number: int, *, task_status: trio.TaskStatus[Member]) -> None:
    WHO.set(number)
    await lab.run(number, task_status=task_status)


def of(lab: Lab, number: int, event: str) -> list[Report]:
    return [report for report in lab.reports[number] if report["event"] == event]


async def test_a_slow_peer_downloads_the_models_and_not_the_updates(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = Counter[int]()
    benchmarks = Counter[int]()
    uploaded = dict[int, int]()
    fetch = Blobs.fetch

    async def count(blobs: Blobs, root: bytes, size: int, holders: object) -> bytes:
        downloaded[WHO.get()] += 0 if root in blobs.store else size
        return await fetch(blobs, root, size, holders)  # type: ignore[arg-type]

    def benchmark(clock: object) -> float:
        benchmarks[WHO.get()] += 1
        return 1.0 if WHO.get() == SLOW else 1e9

    def sent(meter: object, total: int) -> None:
        uploaded[WHO.get()] = total

    monkeypatch.setattr(Blobs, "fetch", count)
    monkeypatch.setattr(driver.Meter, "sent", sent)
    monkeypatch.setattr(driver, "benchmark", benchmark)
    everybody = range(1, SLOW + 1)
    lab = Lab(tiny_manifest(SLOW, rounds=4), compute=PacedCompute)
    async with open_lab(lab) as nursery:
        for number in everybody:
            await nursery.start(start, lab, number)
        await lab.until_finished(*everybody)
    assert_agreed(lab, 4)
    for number in everybody:
        heard = {report["peer"]: report for report in of(lab, number, "capability")}
        assert set(heard) == {str(peer_number(other)) for other in everybody}
        assert heard[str(peer_number(SLOW))]["aggregate_bytes_per_second"] == 1.0
        assert heard[str(peer_number(1))]["cores"] > 0
        relieved = [report["round"] for report in of(lab, number, "duty") if report["relieved"]]
        assert relieved == ([1, 2, 3, 4] if number == SLOW else [])
        assert {len(report["participants"]) for report in of(lab, number, "round")} == {SLOW}
        assert {report["catch_up"] for report in of(lab, number, "round")} == {number == SLOW}
    for number in everybody[:-1]:
        assert downloaded[number] >= 4 * downloaded[SLOW]
    assert downloaded[SLOW] > 0
    assert min(uploaded[number] for number in everybody) > 0
    assert benchmarks[SLOW] > benchmarks[1] == 1  # who is relieved looks again in each round


async def test_where_time_is_not_the_machines_nothing_is_announced(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(3, rounds=1))
    async with open_lab(lab, 1, 2, 3):
        await lab.until_finished(1, 2, 3)
    assert not any(of(lab, number, "capability") for number in (1, 2, 3))
