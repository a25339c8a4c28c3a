"""A task over real sockets: a process for each member, on loopback; those of the liars are `liar`.

The honest ones are `python -m p2p.peer` as it is installed.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import trio

from federated.demo.ledger import Ledger
from federated.demo.process import HONEST, PeerProcess
from p2p.data_dir import IDENTITY, save_identity
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.benchmarks.attacks.liar import write_orders
from tests.benchmarks.attacks.task import Case, liars, manifest

LIAR = "tests.benchmarks.attacks.liar"
SILENCE = 120.0  # seconds without any news before the run is given up


def run(case: Case) -> list[float]:
    """The accuracy on the examples held out after each round, in percent, as the honest members report it.

    Raises `AssertionError` unless every round is certified and all honest members have one model in each.
    """
    with tempfile.TemporaryDirectory(prefix="atcp-attacks-") as folder:
        ledger: Ledger = trio.run(Network(case, Path(folder)).run)
    if ledger.certified < case.rounds or not ledger.digests_agree:
        raise AssertionError(
            f"{case}: {ledger.certified} rounds certified, one model: {ledger.digests_agree}"
        )
    return [100 * (record.accuracy or 0.0) for _, record in sorted(ledger.rounds.items())]


class Network:
    """The processes of one task, in folders below `folder`."""

    def __init__(self, case: Case, folder: Path) -> None:
        places = {self._make_peer(folder / f"peer-{n}", case, n): n for n in range(case.clients)}
        task = manifest(case, [str(peer) for peer in places])
        lying = [task.peer_ids[number] for number in liars(case)]
        path = folder / "task.json"
        path.write_bytes(task.canonical())
        self.ledger = Ledger(case.rounds, task.task_id)
        self._honest = {str(peer): None for peer in places if peer not in lying}
        self._processes: dict[str, PeerProcess] = {}
        for peer, number in sorted(places.items(), key=lambda item: (item[0] in lying, item[1])):
            place = folder / f"peer-{number}"
            if peer in lying:
                write_orders(place, case, lying)
            program = LIAR if peer in lying else HONEST
            self._processes[str(peer)] = PeerProcess(place, [path], folder / f"{number}.log", program)
        self._bootstrap: list[str] = []
        self._news = trio.Event()

    def _make_peer(self, folder: Path, case: Case, number: int) -> PeerId:
        folder.mkdir()
        pair = KeyPair.from_seed(hashlib.sha256(f"atcp attacks {case.seed} {number}".encode()).digest())
        save_identity(folder / IDENTITY, pair)
        return PeerId.from_public_key(pair.public)

    async def run(self) -> Ledger:
        """What the honest have reported when they are through. The first one is everybody's bootstrap."""
        async with trio.open_nursery() as nursery:
            for peer, process in self._processes.items():
                nursery.start_soon(self._live, peer, process)
                await self._wait_until(lambda: bool(self._bootstrap))
            await self._wait_until(lambda: all(peer in self.ledger.finished for peer in self._honest))
            nursery.cancel_scope.cancel()
        return self.ledger

    async def _wait_until(self, condition: Any) -> None:
        while not condition():
            self._news = trio.Event()
            with trio.fail_after(SILENCE):
                await self._news.wait()

    async def _live(self, peer: str, process: PeerProcess) -> None:
        try:
            await process.start(self._bootstrap)
            async for event in process.events():
                self._receive(peer, event)
                self._news.set()
        finally:
            with trio.CancelScope(shield=True):
                await process.stop()
        raise AssertionError(f"{peer} has ended: {process.last_log_line()}")

    def _receive(self, peer: str, event: dict[str, Any]) -> None:
        match event:
            case {"event": "listening", "addrs": addresses} if not self._bootstrap:
                self._bootstrap = addresses
            case {"event": "task", "state": "refused" | "failed", "reason": reason}:
                raise AssertionError(f"{peer} cannot take part: {reason}")
            case {"event": "round"} if peer in self._honest:
                self.ledger.add_round(peer, 0, event)
            case {"event": "certificate"} if peer in self._honest:
                self.ledger.add_certificate(peer, event)
            case {"event": "task", "state": "finished"}:
                self.ledger.finished[peer] = None
