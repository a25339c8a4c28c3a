"""Runs the peers of a demo, kills one now and then when asked, and collects what they report."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from federated.demo.ledger import Kill, Ledger
from federated.demo.process import HONEST, LIAR, PeerProcess
from federated.demo.results import DemoTask, results_of
from federated.demo.task import TRAINERS, centralised_accuracy, demo_manifest
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
    """What `atcp demo` was asked to do; `trainer` is "numpy", "torch" or "both": two tasks at once.

    `task` is a plugin that has both data and model, in place of the digits.
    `byzantine` of the peers lie. `tell` are listeners that every peer tells.
    """

    peers: int = 6
    rounds: int = 15
    seed: int = 7
    trainer: str = "torch"
    kill: bool = False
    byzantine: int = 0
    task: str | None = None
    tell: tuple[str, ...] = ()


def default_trainer() -> str:
    """The one that needs PyTorch where that is installed, numpy's elsewhere."""
    return "torch" if importlib.util.find_spec("torch") else "numpy"


class Demo:
    """One run. `tell` hears of everything as it happens."""

    def __init__(self, settings: DemoSettings, folder: Path, logs: Path, tell: Listener) -> None:
        self.settings = settings
        self._listener = tell
        self._rng = random.Random(settings.seed)
        self._news = trio.Event()
        self._kills_due = list(range(KILL_EVERY, settings.rounds + 1, KILL_EVERY)) if settings.kill else []
        self._folders = _make_peers(settings, folder)
        self.peer_ids = [str(peer) for peer in self._folders]  # the first is the bootstrap, the last ones lie
        self.liars = self.peer_ids[settings.peers - settings.byzantine :]
        self.tasks = _make_tasks(settings, list(self._folders), folder)
        paths = [task.path for task in self.tasks.values()]
        self._processes = {
            str(peer): PeerProcess(
                place,
                paths,
                logs / f"{place.name}.log",
                LIAR if str(peer) in self.liars else HONEST,
                settings.tell,
            )
            for peer, place in self._folders.items()
        }
        self._alive = {peer: None for peer in self.peer_ids if peer not in self.liars}
        self._first_listens = trio.Event()
        self._bootstrap: list[str] = []

    @property
    def ledger(self) -> Ledger:
        """Of the first task; the kills are there."""
        return next(iter(self.tasks.values())).ledger

    @property
    def done(self) -> bool:
        """Whether every honest peer that still runs has finished all tasks."""
        return all(peer in task.ledger.finished for task in self.tasks.values() for peer in self._alive)

    def tell(self, event: dict[str, Any], ledger: Ledger | None = None) -> None:
        """Passes on what happened, with the ledger that knows of it."""
        self._listener(event, ledger or self.ledger)

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
            await self._wait_until(lambda: all(task.centralised is not None for task in self.tasks.values()))

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
        self._alive.pop(peer, None)
        self.tell({"event": "lost", "peer": peer, "reason": process.last_log_line()})
        if not self._alive:
            raise DemoError(f"all peers have ended: {process.last_log_line()}")
        self._news.set()

    def _receive(self, peer: str, life: int, event: dict[str, Any]) -> None:
        task = self.tasks.get(event.get("task", ""))
        match event:
            case {"event": "listening", "addrs": addresses} if not self._bootstrap:
                self._bootstrap = addresses
                self._first_listens.set()
            case {"event": "task", "state": "refused" | "failed", "reason": reason}:
                raise DemoError(f"peer {peer} cannot take part: {reason}")
            case _ if task is not None and peer in self._alive:
                self._receive_of(task.ledger, peer, life, event)
        self._news.set()

    def _receive_of(self, ledger: Ledger, peer: str, life: int, event: dict[str, Any]) -> None:
        """What an honest peer tells of a task; a liar may tell anything."""
        match event["event"]:
            case "round":
                ledger.add_round(peer, life, event)
            case "certificate":
                ledger.add_certificate(peer, event)
            case "membership":
                ejection = ledger.add_change(event)
                if ejection is not None:
                    told = {"event": "ejected", "task": event["task"], "by": peer, "round": ejection.round}
                    self.tell({**told, "peer": ejection.peer, "proof": ejection.proof}, ledger)
            case "evidence":
                ledger.add_evidence(event)
            case "task" if event["state"] == "finished":
                ledger.finished[peer] = None
        if event["event"] in ("round", "phase", "certificate", "evidence"):
            self.tell({**event, ("by" if event["event"] == "evidence" else "peer"): peer}, ledger)
        if event["event"] == "phase" and self._kills_due and event["round"] >= self._kills_due[0]:
            self._kill_one(self._kills_due.pop(0))

    def _kill_one(self, number: int) -> None:
        victims = [
            peer for peer in self.peer_ids[1:] if peer in self._alive and not self._processes[peer].killed
        ]
        if victims:
            peer = self._rng.choice(victims)
            self._processes[peer].kill()
            for task in self.tasks.values():
                task.ledger.finished.pop(peer, None)
            self.ledger.kills.append(Kill(peer=peer, round=number))
            self.tell({"event": "killed", "peer": peer, "round": number})

    async def _train_centrally(self) -> None:
        """What one machine with all the data reaches: the yardstick."""
        settings = self.settings
        for task in self.tasks.values():
            task.centralised = await trio.to_thread.run_sync(
                centralised_accuracy, settings.rounds, settings.seed, task.trainer, abandon_on_cancel=True
            )
            self.tell({"event": "centralised", "accuracy": task.centralised}, task.ledger)
            self._news.set()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news = trio.Event()
            with trio.move_on_after(ROUND_TIMEOUT) as silence:
                await self._news.wait()
            if silence.cancelled_caught:
                last = min(task.ledger.last_round for task in self.tasks.values())
                raise DemoError(f"nothing happened for {ROUND_TIMEOUT:g} s after round {last}")


def _make_peers(settings: DemoSettings, folder: Path) -> dict[PeerId, Path]:
    """The peers by id, each with an identity in a folder of its own."""
    peers: dict[PeerId, Path] = {}
    for number in range(settings.peers):
        place = folder / f"peer-{number}"
        place.mkdir()
        peers[_make_identity(place, f"{settings.seed} {place.name}")] = place
    return peers


def _make_tasks(settings: DemoSettings, members: Sequence[PeerId], folder: Path) -> dict[str, DemoTask]:
    """The tasks by id, each with its manifest in a file."""
    names = {"digits": settings.trainer} if settings.task is None else {settings.task: settings.task}
    if settings.task is None and settings.trainer == "both":
        names = {f"digits-{trainer}": trainer for trainer in TRAINERS}
    tasks, traffic = dict[str, DemoTask](), dict[tuple[str, int], int]()
    for name, trainer in names.items():
        manifest = demo_manifest(members, settings.rounds, settings.seed, trainer, name)
        path = folder / ("task.json" if len(names) == 1 else f"{name}.json")
        path.write_bytes(manifest.canonical())
        ledger = Ledger(settings.rounds, manifest.task_id, traffic, name if len(names) > 1 else "")
        tasks[manifest.task_id.hex()] = DemoTask(trainer=trainer, name=name, path=path, ledger=ledger)
    return tasks


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
    seconds = round(trio.current_time() - started, 2)
    return {"settings": asdict(settings), "seconds": seconds, **results_of(demo.tasks.values(), demo.liars)}
