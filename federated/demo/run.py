"""Runs the peers of a demo, kills one now and then when asked, and collects what they report."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from federated.demo.ledger import Kill, Ledger
from federated.demo.process import PeerProcess
from federated.demo.task import centralised_accuracy, demo_manifest
from federated.errors import FederatedError
from p2p.data_dir import IDENTITY, save_identity
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.scope import open_scope

KILL_EVERY = 3  # rounds
START_TIMEOUT = 60.0  # seconds for a peer to listen; six at once import torch on two cores
ROUND_TIMEOUT = 60.0  # seconds without any news before the demo gives up

Listener = Callable[[dict[str, Any], Ledger], None]


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
    """The one that needs PyTorch where that is installed, numpy's elsewhere."""
    return "torch" if importlib.util.find_spec("torch") else "numpy"


class Demo:
    """One run. `tell` hears of everything as it happens."""

    def __init__(self, settings: DemoSettings, folder: Path, logs: Path, tell: Listener) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.rounds)
        self.centralised: float | None = None
        self._listener = tell
        self._rng = random.Random(settings.seed)
        self._news = trio.Event()
        self._kills_due = list(range(KILL_EVERY, settings.rounds + 1, KILL_EVERY)) if settings.kill else []
        self._processes = _prepare(settings, folder, logs)
        self.peer_ids = list(self._processes)  # the first is the bootstrap
        self._alive = dict.fromkeys(self.peer_ids)
        self._first_listens = trio.Event()
        self._bootstrap: list[str] = []

    @property
    def done(self) -> bool:
        """Whether every peer that still runs has finished the task."""
        return all(peer in self.ledger.finished for peer in self._alive)

    def tell(self, event: dict[str, Any]) -> None:
        """Passes on what happened, with the ledger that knows of it."""
        self._listener(event, self.ledger)

    async def run(self) -> None:
        """Returns when all peers are through and gone. Raises `DemoError`."""
        async with open_scope() as nursery:
            nursery.start_soon(self._train_centrally)
            for peer, process in self._processes.items():
                nursery.start_soon(self._live, peer, process)
                with trio.move_on_after(START_TIMEOUT):
                    await self._first_listens.wait()
                if not self._bootstrap:
                    raise DemoError(f"the first peer does not listen: {process.last_log_line()}")
            await self._wait_until(lambda: self.done)
            await self._wait_until(lambda: self.centralised is not None)

    async def _live(self, peer: str, process: PeerProcess) -> None:
        """The lives of one peer: started, perhaps killed and started again, in the end stopped."""
        try:
            for life in itertools.count():
                await process.start(self._bootstrap)
                async for event in process.events():
                    self._receive(peer, life, event)
                if not process.killed:
                    break
                self.tell({"event": "restarted", "peer": peer})
        finally:
            with trio.CancelScope(shield=True):
                await process.stop()
        self._first_listens.set()  # or never will
        del self._alive[peer]
        self.tell({"event": "lost", "peer": peer, "reason": process.last_log_line()})
        if not self._alive:
            raise DemoError(f"all peers have ended: {process.last_log_line()}")
        self._news.set()

    def _receive(self, peer: str, life: int, event: dict[str, Any]) -> None:
        match event:
            case {"event": "listening", "addrs": addresses} if not self._bootstrap:
                self._bootstrap = addresses
                self._first_listens.set()
            case {"event": "round"}:
                self.ledger.add_round(peer, life, event)
                self.tell({**event, "peer": peer})
            case {"event": "phase", "round": number}:
                self.tell({**event, "peer": peer})
                if self._kills_due and number >= self._kills_due[0]:
                    self._kill_one(self._kills_due.pop(0))
            case {"event": "task", "state": "finished"}:
                self.ledger.finished[peer] = None
            case {"event": "task", "state": "refused" | "failed", "reason": reason}:
                raise DemoError(f"peer {peer} cannot take part: {reason}")
        self._news.set()

    def _kill_one(self, number: int) -> None:
        victims = [
            peer for peer in self.peer_ids[1:] if peer in self._alive and not self._processes[peer].killed
        ]
        if victims:
            peer = self._rng.choice(victims)
            self._processes[peer].kill()
            self.ledger.finished.pop(peer, None)
            self.ledger.kills.append(Kill(peer=peer, round=number))
            self.tell({"event": "killed", "peer": peer, "round": number})

    async def _train_centrally(self) -> None:
        """What one machine with all the data reaches: the yardstick."""
        settings = self.settings
        self.centralised = await trio.to_thread.run_sync(
            centralised_accuracy, settings.rounds, settings.seed, settings.trainer, abandon_on_cancel=True
        )
        self.tell({"event": "centralised", "accuracy": self.centralised})
        self._news.set()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news = trio.Event()
            with trio.move_on_after(ROUND_TIMEOUT) as silence:
                await self._news.wait()
            if silence.cancelled_caught:
                raise DemoError(
                    f"nothing happened for {ROUND_TIMEOUT:g} s after round {self.ledger.last_round}"
                )


def _prepare(settings: DemoSettings, folder: Path, logs: Path) -> dict[str, PeerProcess]:
    """The peers by id, each with an identity in a folder, and the manifest that names them all."""
    manifest_path = folder / "task.json"
    processes: dict[PeerId, PeerProcess] = {}
    for name in [f"peer-{number}" for number in range(settings.peers)]:
        (folder / name).mkdir()
        peer = _make_identity(folder / name, f"{settings.seed} {name}")
        processes[peer] = PeerProcess(folder / name, manifest_path, logs / f"{name}.log")
    manifest = demo_manifest(list(processes), settings.rounds, settings.seed, settings.trainer)
    manifest_path.write_bytes(manifest.canonical())
    return {str(peer): process for peer, process in processes.items()}


def _make_identity(folder: Path, seed: str) -> PeerId:
    """Gives the peer of `folder` the identity of `seed`: the same seed repeats the whole demo.

    Anybody could make the same keys; the peers of a demo only talk to one another, on loopback.
    """
    pair = KeyPair.from_seed(hashlib.sha256(f"atcp demo {seed}".encode()).digest())
    save_identity(folder / IDENTITY, pair)
    return PeerId.from_public_key(pair.public)


async def run_demo(settings: DemoSettings, logs: Path, tell: Listener) -> dict[str, Any]:
    """Runs a demo to its end; what it came to, ready for `results.json`. Raises `DemoError`.

    The peers' folders are temporary; their logs stay in the folder `logs`.
    """
    started = trio.current_time()
    with tempfile.TemporaryDirectory(prefix="atcp-demo-") as folder:
        demo = Demo(settings, Path(folder), logs, tell)
        demo.tell({"event": "started", **asdict(settings), "peer_ids": demo.peer_ids})
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
