"""kill -9 of real processes at each moment of a task; see `tests.search.crashes`.

Four peers on loopback, with files of their own, train on the digits. One of them ends itself with SIGKILL
before its n-th change of a file or message, and is started again. A fifth peer, which is no member, reports
all that is said on the task's topic.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from federated.directory.signed import load_task_file
from federated.driver import topic_of
from federated.rounds.wire import decode
from p2p.data_dir import IDENTITY, save_identity
from p2p.peer_id import PeerId
from tests.processes import PEER, Process, run_process
from tests.search.crashes import Contradiction, Ledger
from tests.support import key_number

PEERS = 4
ROUNDS = 2
LIMIT = 90.0  # seconds for one run
LATER = 3.0  # seconds after the end of the task in which the moment may come still
DEADLY = [sys.executable, "-m", "tests.search.deadly_peer"]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of one run: whether the moment came, and the votes that were heard."""

    died: bool
    votes: int


def write_task(folder: Path, peers: int, changes: Mapping[str, Any]) -> Path:
    """A small task of these peers, in a file; their folders have their keys."""
    keys = [key_number(number + 1) for number in range(peers)]
    for number, key in enumerate(keys):
        (folder / str(number)).mkdir()
        save_identity(folder / str(number) / IDENTITY, key)
    task = {
        "name": "kill-9",
        "seed": 1,
        "rounds": ROUNDS,
        "members": [str(PeerId.from_public_key(key.public)) for key in keys],
        "preprocessor": {"name": "digits"},
        "trainer": {"name": "numpy-mlp", "settings": {"hidden": [8], "epochs": 1, "carry": True}},
        "aggregator": {"name": "weighted-mean"},
        "validator": {"name": "update-check"},
        "policy": {"train_deadline_s": 10.0, "phase_deadline_s": 2.0},
        **changes,
    }
    path = folder / "task.json"
    path.write_text(json.dumps(task))
    return path


class Task:
    """One task of real processes, in `folder`; `changes` are fields of its manifest."""

    def __init__(self, folder: Path, peers: int = PEERS, changes: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._peers = peers
        self._path = write_task(folder, peers, changes or {})
        self._rounds = load_task_file(self._path)[0].rounds
        self._digests: dict[int, set[str]] = {}
        self._bootstrap = ""

    async def run(self, moment: int) -> Run:
        """The victim dies at that moment. Raises when the task does not come to a good end."""
        topic = topic_of(load_task_file(self._path)[0])
        async with run_process([*PEER, "--subscribe", topic], ROOT) as listener:
            self._bootstrap = (await listener.wait_for("listening"))["addrs"][0]
            async with AsyncExitStack() as stack:
                others = [
                    await stack.enter_async_context(self._peer(number, -1))
                    for number in range(1, self._peers)
                ]
                died = await self._first_life(moment)
                async with self._peer(0, -1) as victim:
                    for process in [victim, *others]:
                        await process.wait_for("task", _is_finished, deadline=LIMIT)
                    for process in [victim, *others]:
                        self._collect(process)
            ledger = _heard(listener)
        if len(self._digests) != self._rounds or any(len(found) != 1 for found in self._digests.values()):
            raise Contradiction(f"models by round: {self._digests}")
        return Run(died=died, votes=ledger.votes)

    def _peer(self, number: int, moment: int) -> AbstractAsyncContextManager[Process]:
        command = [*DEADLY, str(moment), "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]
        command += ["--data-dir", str(self._folder / str(number)), "--bootstrap", self._bootstrap]
        return run_process([*command, "--task", str(self._path)], ROOT)

    async def _first_life(self, moment: int) -> bool:
        """Whether the victim died; else it came to the end of the task."""
        async with self._peer(0, moment) as victim:
            async with trio.open_nursery() as nursery:

                async def end() -> None:
                    with suppress(AssertionError):  # the process is gone before
                        await victim.wait_for("task", _is_finished, deadline=LIMIT)
                        await trio.sleep(LATER)
                        nursery.cancel_scope.cancel()

                nursery.start_soon(end)
                await victim.process.wait()
                nursery.cancel_scope.cancel()
            self._collect(victim)
            return victim.process.returncode is not None

    def _collect(self, process: Process) -> None:
        """The digests of the rounds that a process has reported."""
        for event in waiting(process, "round"):
            self._digests.setdefault(event["round"], set()).add(event["digest"])


def _is_finished(event: dict[str, Any]) -> bool:
    return bool(event["state"] == "finished")


def waiting(process: Process, name: str) -> list[dict[str, Any]]:
    """The events of this name that came and that nobody has taken."""
    return [event for event in process._waiting if event["event"] == name]


def _heard(listener: Process) -> Ledger:
    ledger = Ledger()
    for event in waiting(listener, "message"):
        ledger.hear(PeerId.parse(event["from"]), decode(base64.b64decode(event["data"])).body)
    return ledger


async def kill_at(moment: int, peers: int = PEERS, changes: Mapping[str, Any] | None = None) -> Run:
    """Runs the task with a peer that dies at that moment, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, trio.fail_after(LIMIT):
        return await Task(Path(folder), peers, changes).run(moment)


def run_all(
    only: Sequence[int] | None, step: int, kill: Callable[[int], Awaitable[Run]], program: str
) -> int:
    """All moments until one that does not come, each in a run of `kill`; the exit status."""
    started, failed, done = time.perf_counter(), 0, 0
    moments = list(only or range(0, 10_000, step))
    for moment in moments:
        done += 1
        try:
            run = trio.run(kill, moment)
        except* (AssertionError, trio.TooSlowError) as group:
            failed += 1
            print(f"moment {moment}: {group.exceptions}")
            print(f"repeat with: python -m {program} --real --only {moment}", flush=True)
        else:
            print(f"moment {moment}: {'died' if run.died else 'lived'}, {run.votes} votes heard", flush=True)
            if not run.died:
                break
    seconds = time.perf_counter() - started
    print(f"{done} runs, {failed} failed, {seconds:.1f} s")
    return 1 if failed else 0
