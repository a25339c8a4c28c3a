"""Runs the peers of a demo, kills one now and then when asked, and collects what they report."""

from __future__ import annotations

import importlib.util
import logging
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from federated.demo.ledger import Kill, Ledger
from federated.demo.process import PeerProcess
from federated.demo.task import centralised_accuracy, demo_manifest
from federated.errors import FederatedError
from p2p.data_dir import open_data_dir
from p2p.peer_id import PeerId
from p2p.scope import open_scope

logger = logging.getLogger(__name__)

KILL_EVERY = 3  # rounds
START_TIMEOUT = 60.0  # seconds for a peer to listen; six at once import torch on two cores
ROUND_TIMEOUT = 60.0  # seconds without any news before the demo gives up

Listener = Callable[[dict[str, Any]], None]


class DemoError(FederatedError):
    """The demo could not be run to its end; the message says why and where the logs are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What `atcp demo` was asked to do."""

    peers: int = 6
    rounds: int = 15
    seed: int = 7
    trainer: str = "torch"
    kill: bool = False


def default_trainer() -> str:
    """ "torch" where PyTorch is installed, "numpy" elsewhere."""
    return "torch" if importlib.util.find_spec("torch") else "numpy"


class Demo:
    """One run. `tell` hears of everything as it happens."""

    def __init__(self, settings: DemoSettings, folder: Path, tell: Listener) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.rounds)
        self.centralised: float | None = None
        self._tell = tell
        self._rng = random.Random(settings.seed)
        self._news = trio.Event()
        self._kills_due = list(range(KILL_EVERY, settings.rounds + 1, KILL_EVERY)) if settings.kill else []
        self._ids, self._processes = _prepare(settings, folder)
        self._alive: dict[str, None] = dict.fromkeys(self._ids)
        self._bootstrap = trio.Event()
        self._addresses: list[str] = []

    @property
    def done(self) -> bool:
        """Whether every peer that still runs has finished the task."""
        return all(peer in self.ledger.finished for peer in self._alive)

    async def run(self) -> None:
        """Returns when all peers are through. Raises `DemoError`."""
        async with open_scope() as nursery:
            nursery.start_soon(self._train_centrally)
            try:
                for peer, process in zip(self._ids, self._processes, strict=True):
                    nursery.start_soon(self._live, peer, process)
                    with trio.move_on_after(START_TIMEOUT):
                        await self._bootstrap.wait()
                    if not self._addresses:
                        raise DemoError(f"the first peer does not listen: {process.last_log_line()}")
                await self._wait_until(lambda: self.done)
                await self._wait_until(lambda: self.centralised is not None)
            finally:
                with trio.CancelScope(shield=True):
                    await self._stop_all()

    async def _live(self, peer: str, process: PeerProcess) -> None:
        """The lives of one peer: started, perhaps killed and started again."""
        life = 0
        while True:
            await process.start(self._addresses)
            async for event in process.events():
                self._receive(peer, process, life, event)
            life += 1
            if not process.killed or peer not in self._alive:
                break
            self._tell({"event": "restarted", "peer": peer})
        if self._alive.pop(peer, 0) is None and not self.done:
            self._tell({"event": "lost", "peer": peer, "reason": process.last_log_line()})
            if not self._alive:
                raise DemoError(f"all peers have ended: {process.last_log_line()}")
        self._wake()

    def _receive(self, peer: str, process: PeerProcess, life: int, event: dict[str, Any]) -> None:
        match event:
            case {"event": "listening", "addrs": addresses} if not self._addresses:
                self._addresses = addresses
                self._bootstrap.set()
            case {"event": "round"}:
                self.ledger.add_round(peer, life, event)
                self._tell({**event, "peer": peer})
            case {"event": "phase", "round": number}:
                self._tell({**event, "peer": peer})
                if peer == self._ids[0] and self._kills_due and number >= self._kills_due[0]:
                    self._kill_one(self._kills_due.pop(0))
            case {"event": "task", "state": "finished"}:
                self.ledger.finished[peer] = None
            case {"event": "task", "state": "refused" | "failed", "reason": reason}:
                raise DemoError(f"peer {peer} cannot take part: {reason}")
        self._wake()

    def _kill_one(self, number: int) -> None:
        victims = [(peer, process) for peer, process in zip(self._ids, self._processes, strict=True)][1:]
        victims = [(peer, process) for peer, process in victims if peer in self._alive and not process.killed]
        if victims:
            peer, process = self._rng.choice(victims)
            process.kill()
            self.ledger.finished.pop(peer, None)
            self.ledger.kills.append(Kill(peer=peer, round=number))
            self._tell({"event": "killed", "peer": peer, "round": number})

    async def _train_centrally(self) -> None:
        """What one machine with all the data reaches: the yardstick."""
        settings = self.settings
        self.centralised = await trio.to_thread.run_sync(
            centralised_accuracy, settings.rounds, settings.seed, settings.trainer, abandon_on_cancel=True
        )
        self._tell({"event": "centralised", "accuracy": self.centralised})
        self._wake()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news = trio.Event()
            with trio.move_on_after(ROUND_TIMEOUT) as silence:
                await self._news.wait()
            if silence.cancelled_caught:
                raise DemoError(
                    f"nothing happened for {ROUND_TIMEOUT:g} s after round {self.ledger.last_round}"
                )

    def _wake(self) -> None:
        self._news.set()

    async def _stop_all(self) -> None:
        self._alive.clear()
        async with trio.open_nursery() as nursery:
            for process in self._processes:
                nursery.start_soon(process.stop)


def _prepare(settings: DemoSettings, folder: Path) -> tuple[list[str], list[PeerProcess]]:
    """An identity and a folder for each peer, and the manifest that names them all."""
    manifest_path = folder / "task.json"
    processes = [
        PeerProcess(index, folder / f"peer-{index}", manifest_path) for index in range(settings.peers)
    ]
    ids: list[PeerId] = []
    for process in processes:
        with open_data_dir(process.folder) as key:
            ids.append(PeerId.from_public_key(key.public))
    manifest = demo_manifest(ids, settings.rounds, settings.seed, settings.trainer)
    manifest_path.write_bytes(manifest.canonical())
    return [str(peer) for peer in ids], processes


@asynccontextmanager
async def _working_folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="atcp-demo-") as name:
        yield Path(name)


async def run_demo(settings: DemoSettings, tell: Listener) -> dict[str, Any]:
    """Runs a demo to its end; what it came to, ready for `results.json`. Raises `DemoError`."""
    started = trio.current_time()
    async with _working_folder() as folder:
        demo = Demo(settings, folder, tell)
        tell({"event": "started", **asdict(settings), "peer_ids": demo._ids})
        await demo.run()
    ledger = demo.ledger
    return {
        "settings": asdict(settings),
        "accuracy": ledger.accuracy,
        "centralised_accuracy": demo.centralised,
        "rounds": ledger.last_round,
        "peers": settings.peers,
        "digests_agree": ledger.digests_agree,
        "seconds": round(trio.current_time() - started, 2),
        "bytes_sent": ledger.bytes_sent,
        "slowest_phase": ledger.slowest_phase,
        "kills": [asdict(kill) for kill in ledger.kills],
        "history": [asdict(record) for _, record in sorted(ledger.rounds.items())],
    }
