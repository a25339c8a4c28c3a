"""The plugin process from inside, without a process: its server, its watch, and its loop on a socket."""

from __future__ import annotations

import mmap
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from federated import codec
from federated.isolation import child
from federated.isolation.child import PAGE, Server, Watch, serve
from federated.isolation.wire import (
    LENGTH,
    MAX_REQUEST,
    Evaluate,
    Failed,
    Measured,
    Prepare,
    Ready,
    Refresh,
    Refreshed,
    Reply,
    Request,
    Train,
    Trained,
    WireError,
    decode,
    encode,
)
from federated.learner import LocalUpdate
from federated.manifest import TaskManifest
from federated.throttle import Throttle
from tests.federated.isolation import bugs
from tests.federated.isolation.bugs import buggy_task

MEMORY = 1 << 30


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, PAGE.size) as made:
        yield made


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders"
    path.write_text("")
    return path


def prepare(manifest: TaskManifest) -> Prepare:
    peers = tuple(str(peer) for peer in manifest.peer_ids)
    return Prepare(
        manifest=manifest.canonical(),
        plugins=bugs.REGISTRY.edge_points(manifest),
        peer=peers[0],
        members=peers,
        index=0,
        data_dir="/data",
    )


def train(initial: bytes) -> Train:
    state = codec.encode({})
    return Train(parameters=initial, round=1, steps_per_second=0.0, state=state, key=b"")


def test_a_server_does_what_it_is_asked(page: mmap.mmap, orders: Path) -> None:
    server = Server(page, MEMORY)
    ready = server.handle(prepare(buggy_task(orders)))
    assert isinstance(ready, Ready)
    assert (ready.refreshes, ready.remembers) == (False, False)
    trained = server.handle(train(ready.initial))
    assert isinstance(trained, Trained)
    assert trained.update.examples == 1
    assert PAGE.unpack(page) == (0, 1)
    measured = server.handle(Evaluate(parameters=ready.initial, state=codec.encode({})))
    assert measured == Measured(measures={"accuracy": None, "loss": 1.0})
    assert server.handle(Refresh()) == Refreshed()


@pytest.mark.parametrize(
    ("bug", "kind", "line", "ends"),
    [
        ("exception", "plugin", "trainer 'buggy' failed: LookupError: no (bugs.py, line ", False),
        ("exit_softly", "plugin", "trainer 'buggy' failed: SystemExit: enough (bugs.py, line ", False),
        ("interrupt", "plugin", "a plugin failed: KeyboardInterrupt: me (bugs.py, line ", False),
        ("own_exception", "plugin", "trainer 'buggy' failed: Rude (bugs.py, line ", False),
        ("recursion", "plugin", "trainer 'buggy' failed: RecursionError: maximum recursion depth ", False),
        ("no_data", "data", "trainer 'buggy': there are none (bugs.py, line ", False),
        ("stopped", "stopped", "asked", False),
        ("no_memory", "plugin", "trainer 'buggy' failed: MemoryError: all gone (bugs.py, line ", True),
        ("no_memory_of_torch", "plugin", "trainer 'buggy' failed: RuntimeError: [enforce fail at ", True),
    ],
)
def test_what_a_plugin_raises_is_an_answer(
    bug: str,
    kind: str,
    line: str,
    ends: bool,
    page: mmap.mmap,
    orders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "release_reserve", lambda: None)  # this process is no plugin process
    server = Server(page, MEMORY)
    ready = server.handle(prepare(buggy_task(orders)))
    assert isinstance(ready, Ready)
    orders.write_text(f"{bug} train")
    failed = server.handle(train(ready.initial))
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.ends) == (kind, ends)
    assert failed.reason.startswith(line)
    assert failed.reason.endswith("may have 1024 MiB, see --plugin-memory") == ends


def test_who_is_not_ready_says_so(page: mmap.mmap) -> None:
    assert Server(page, MEMORY).handle(Refresh()) == Failed(kind="plugin", reason="nothing is loaded yet")


class Resting(Throttle):
    """Wants to rest for ever."""

    def __init__(self, page: mmap.mmap) -> None:
        super().__init__(1)
        self._page = page

    def rest(self, now: float, processor: float) -> float:
        self._page[0] = 1  # somebody asks it to stop while it rests
        return 1e9


def test_a_watch_counts_steps_until_it_is_told_to_stop(page: mmap.mmap) -> None:
    watch = Watch(page, Throttle(64))
    assert [watch(), watch(), watch()] == [False] * 3
    assert PAGE.unpack(page) == (0, 3)
    page[0] = 1
    assert watch()
    assert PAGE.unpack(page) == (1, 3)


def test_a_rest_ends_when_nobody_wants_the_result(page: mmap.mmap) -> None:
    assert Watch(page, Resting(page))()


def test_a_rest_ends_by_itself(page: mmap.mmap) -> None:
    class Tired(Throttle):
        def rest(self, now: float, processor: float) -> float:
            return 1e-4

    assert not Watch(page, Tired(1))()


# The loop


class Peer:
    """The other end of a server's socket."""

    def __init__(self, page: int) -> None:
        self.socket, there = socket.socketpair()
        self.socket.settimeout(60.0)
        self._thread = threading.Thread(target=serve, args=(there.detach(), page, MEMORY))
        self._thread.start()

    def ask(self, request: Request) -> Reply:
        for part in encode(request, MAX_REQUEST):
            self.socket.sendall(part)
        length = int.from_bytes(self.socket.recv(LENGTH, socket.MSG_WAITALL), "big")
        reply = decode(self.socket.recv(length, socket.MSG_WAITALL))
        assert not isinstance(reply, Request)
        return reply

    def ended(self) -> bool:
        """Whether the loop ended; waits for that."""
        self._thread.join(60.0)
        self.socket.close()
        return not self._thread.is_alive()


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "page").open("wb+") as file:
        file.truncate(PAGE.size)
        yield file.fileno()


@pytest.fixture(autouse=True)
def no_fork_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.register_at_fork", lambda **_: None)  # it would last as long as the tests


def test_a_loop_answers_until_the_peer_is_gone(descriptor: int, orders: Path) -> None:
    peer = Peer(descriptor)
    assert isinstance(peer.ask(prepare(buggy_task(orders))), Ready)
    assert peer.ask(Refresh()) == Refreshed()
    peer.socket.shutdown(socket.SHUT_RDWR)
    assert peer.ended()


def test_a_loop_ends_when_memory_has_run_out(
    descriptor: int, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "release_reserve", lambda: None)
    peer = Peer(descriptor)
    orders.write_text("no_memory load")
    failed = peer.ask(prepare(buggy_task(orders)))
    assert isinstance(failed, Failed)
    assert failed.ends
    assert peer.ended()


def test_a_loop_ends_at_a_request_that_is_too_long(descriptor: int) -> None:
    peer = Peer(descriptor)
    peer.socket.sendall((MAX_REQUEST + 1).to_bytes(LENGTH, "big"))
    assert peer.ended()


def test_an_answer_that_cannot_be_sent_is_a_failure(
    descriptor: int, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = Trained(update=LocalUpdate(data=b"", examples=1 << 70))
    monkeypatch.setattr(Server, "handle", lambda *_: reply)
    peer = Peer(descriptor)
    failed = peer.ask(Refresh())
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("the answer of a plugin: it cannot be sent: ")
    peer.socket.shutdown(socket.SHUT_RDWR)
    assert peer.ended()
    with pytest.raises(WireError):
        encode(reply, MAX_REQUEST)
