from __future__ import annotations

import itertools
import sqlite3
import time
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.address import parse_address
from p2p.errors import InvalidInput
from p2p.persistence import SAVE_INTERVAL, open_peerstore_file
from p2p.store import PeerFile
from p2p.transport import MemoryNetwork
from tests.byte_streams import cancel_at_each_await
from tests.support import connect, open_memory_host, open_memory_hosts


@pytest.fixture
def path(tmp_path):
    return tmp_path / "peers.sqlite"


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    """A virtual clock does not see threads: it runs ahead while one works."""

    async def inline(function, *arguments):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", inline)


@pytest.fixture
def saves(monkeypatch):
    """When each save of a file began, in trio's seconds."""
    times: list[float] = []
    save = PeerFile.save

    def counted(file, *rows):
        times.append(trio.current_time())
        save(file, *rows)

    monkeypatch.setattr(PeerFile, "save", counted)
    return times


def peers_in(path) -> set[bytes]:
    file = PeerFile(path)
    addresses, _ = file.load(time.time())
    file.close()
    return {peer for peer, _, _ in addresses}


async def test_a_restarted_host_knows_whom_it_was_connected_to(autojump_clock, path):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as other:
        async with open_memory_host(network, 2) as first, open_peerstore_file(first, path):
            await connect(first, other)
        async with open_memory_host(network, 2) as again, open_peerstore_file(again, path):
            assert again.peerstore.addresses(other.peer_id) == other.addresses()
            await again.connect(other.peer_id)


async def test_a_host_that_has_lost_everybody_keeps_its_way_back(autojump_clock, path):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as one, open_peerstore_file(one, path):
        async with open_memory_host(network, 2) as other:
            await connect(one, other)
            await trio.sleep(SAVE_INTERVAL)
        await trio.sleep(3600)
        assert one.peers() == []
    assert peers_in(path) == {other.peer_id.raw}


async def test_churn_costs_one_save_in_an_interval(autojump_clock, path, saves):
    async with open_memory_hosts(6) as [one, *others]:
        async with open_peerstore_file(one, path):
            for other in others:
                await connect(one, other)
                await trio.sleep(SAVE_INTERVAL / 4)
            await trio.sleep(2 * SAVE_INTERVAL)
        during, last = saves[:-1], saves[-1]
        assert len(during) == 3
        assert all(later - earlier >= SAVE_INTERVAL for earlier, later in itertools.pairwise(during))
        assert last > during[-1]
    assert peers_in(path) == {other.peer_id.raw for other in others}


async def test_expired_peers_leave_the_file_although_nothing_happens(autojump_clock, path, monkeypatch):
    """CVE-2023-40583: records of peers that never came back were kept for good."""
    purged, purge = trio.Event(), PeerFile.purge

    def watched(file, now):
        purge(file, now)
        purged.set()

    async with open_memory_hosts(1) as [one], open_peerstore_file(one, path):
        monkeypatch.setattr(PeerFile, "purge", watched)
        other = PeerFile(path)
        other.save([(b"gone", b"address", 1.0)], [(b"gone", b"envelope")])
        await purged.wait()
        assert other.load(0.0) == ([], [])
        other.close()


async def test_a_subscription_that_is_cut_off_is_renewed(autojump_clock, path, monkeypatch, saves):
    monkeypatch.setattr("p2p.host.EVENT_BUFFER", 4)
    async with open_memory_hosts(3) as [one, other, third], open_peerstore_file(one, path):
        await wait_all_tasks_blocked()
        await connect(one, other)
        for _ in range(10):
            one._notify(one._identified[other.peer_id])
        await connect(one, third)
        await trio.sleep(3 * SAVE_INTERVAL)
    assert len(saves) >= 2
    assert peers_in(path) == {other.peer_id.raw, third.peer_id.raw}


async def test_a_disk_that_fails_is_logged_and_the_host_lives_on(autojump_clock, path, monkeypatch, caplog):
    def full(*_):
        raise sqlite3.OperationalError("disk is full")

    async with open_memory_hosts(2) as [one, other]:
        async with open_peerstore_file(one, path):
            monkeypatch.setattr(PeerFile, "save", full)
            await connect(one, other)
            await trio.sleep(SAVE_INTERVAL)
        assert one.is_connected(other.peer_id)
    assert "disk is full" in caplog.text


async def test_a_file_whose_pages_are_damaged_is_named(path):
    file = PeerFile(path)
    address = parse_address("/memory/1").to_bytes()
    file.save([(number.to_bytes(34, "big"), address, 1e12) for number in range(2000)], [])
    file.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096 * 3 :] = b"\xff" * (len(damaged) - 4096 * 3)
    path.write_bytes(damaged)
    async with open_memory_hosts(1) as [host]:
        with pytest.raises(InvalidInput, match=r"peers\.sqlite"):
            async with open_peerstore_file(host, path):
                pass


async def test_the_keeper_is_cancelled_at_any_await_and_the_file_stays_whole(autojump_clock, tmp_path):
    numbers = itertools.count()

    @asynccontextmanager
    async def world():
        path = tmp_path / f"{next(numbers)}.sqlite"
        async with open_memory_hosts(2) as [one, other]:
            await connect(one, other)

            async def operation():
                async with open_peerstore_file(one, path):
                    await trio.sleep(SAVE_INTERVAL)

            yield operation
            if path.exists():
                assert peers_in(path) == {other.peer_id.raw}

    assert await cancel_at_each_await(world) >= 1
