"""The plugin process from inside: takes requests one after the other, lets a learner do them, answers.

Everything that a plugin may raise is an answer. What ends the process otherwise is for the peer to see.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

from federated import codec
from federated.blame import told
from federated.errors import DataError, FederatedError, PluginError, TrainingStopped
from federated.isolation.limits import release_reserve
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
from federated.learner import LocalLearner, learn_here
from federated.manifest import TaskManifest
from federated.pace import Pace
from federated.plugin import PeerContext
from federated.registry import GROUP, Registry
from federated.throttle import Throttle
from p2p.peer_id import PeerId

PAGE = struct.Struct("<B7xQ")  # of shared memory: whether to stop, and the steps of this training so far
STEPS_AT = 8  # byte
NAP = 0.05  # seconds of a rest after which the trainer looks whether to stop


class Watch:
    """The `should_stop` of a training: counts its steps, and lets it rest while it takes too much."""

    def __init__(self, page: mmap.mmap, throttle: Throttle) -> None:
        self._page = page
        self._throttle = throttle
        self._steps = 0

    def __call__(self) -> bool:
        """Whether nobody wants the result any more; asked before each batch."""
        page = self._page
        if page[0]:
            return True
        self._steps += 1
        struct.pack_into("<Q", page, STEPS_AT, self._steps)
        rest = self._throttle.rest(time.monotonic(), time.process_time())
        end = time.monotonic() + rest
        while rest > 0 and not page[0]:
            time.sleep(min(rest, NAP))
            rest = end - time.monotonic()
        return bool(page[0])


class Server:
    """One learner, and how it is asked."""

    def __init__(self, page: mmap.mmap, memory: int) -> None:
        self._page = page
        self._memory = memory
        self._throttle = Throttle(len(os.sched_getaffinity(0)))
        self._learner: LocalLearner | None = None

    def handle(self, request: Request) -> Reply:
        """What `request` comes to; whatever is raised is a failure with its line."""
        try:
            return self._handle(request)
        except TrainingStopped as exc:
            return Failed(kind="stopped", reason=str(exc))
        except FederatedError as exc:
            kind = "data" if isinstance(exc, DataError) else "plugin"
            return self._failed(kind, str(exc), exc)
        except BaseException as exc:  # of a plugin, or of ours for what a plugin did
            return self._failed("plugin", f"a plugin failed: {told(exc)}", exc)

    def _handle(self, request: Request) -> Reply:
        if isinstance(request, Prepare):
            return self._prepare(request)
        learner = self._learner
        if learner is None:
            raise PluginError("nothing is loaded yet")
        match request:
            case Train(round=number, key=key):
                pace = Pace()
                pace.steps_per_second = request.steps_per_second
                watch = Watch(self._page, self._throttle)
                parameters = codec.decode_any(request.parameters, MAX_REQUEST)
                state = codec.decode_any(request.state, MAX_REQUEST)
                return Trained(update=learner.train(parameters, number, watch, pace, state, key))
            case Evaluate():
                parameters = codec.decode_any(request.parameters, MAX_REQUEST)
                state = codec.decode_any(request.state, MAX_REQUEST)
                return Measured(measures=learner.evaluate(parameters, state))
            case Refresh():
                learner.refresh()
                return Refreshed()

    def _prepare(self, request: Prepare) -> Ready:
        manifest = TaskManifest.model_validate_json(request.manifest)
        points = [EntryPoint(name, value, GROUP) for name, value in sorted(request.plugins.items())]
        plugins = Registry(installed=points).load_edge(manifest)
        context = PeerContext(
            peer=PeerId.parse(request.peer),
            members=tuple(PeerId.parse(member) for member in request.members),
            index=request.index,
            data_dir=None if request.data_dir is None else Path(request.data_dir),
        )
        learner = self._learner = learn_here(manifest, plugins, context)
        return Ready(
            initial=codec.encode(learner.initial),
            profile=learner.profile,
            refreshes=learner.refreshes,
            remembers=learner.remembers,
        )

    def _failed(self, kind: str, reason: str, exc: BaseException) -> Failed:
        """With what to do about it, where memory ran out."""
        if not _is_memory(exc):
            return Failed(kind=kind, reason=reason)
        release_reserve()
        limit = f"; a plugin process may have {self._memory / (1 << 20):.0f} MiB, see --plugin-memory"
        return Failed(kind=kind, reason=reason + limit, ends=True)


def _is_memory(exc: BaseException | None) -> bool:
    while exc is not None:
        if isinstance(exc, MemoryError) or (
            isinstance(exc, RuntimeError | OSError) and "allocate memory" in str(exc)
        ):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def serve(link: int, page: int, memory: int) -> None:
    """Answers what comes over the socket `link`, until it ends or the process is of no more use."""
    connection = socket.socket(fileno=link)
    os.register_at_fork(after_in_child=connection.close)  # one of us talks to the peer
    # what ends it: the peer closes the socket, or a plugin does; or we are a fork of the one that has it
    with suppress(OSError, EOFError), connection, mmap.mmap(page, PAGE.size) as shared:
        server = Server(shared, memory)
        while True:
            reply = server.handle(_receive(connection))
            for part in _encoded(reply):
                connection.sendall(part)
            if isinstance(reply, Failed) and reply.ends:
                break


def _encoded(reply: Reply) -> list[bytes]:
    try:
        return encode(reply, MAX_REQUEST)
    except WireError as exc:
        return encode(Failed(kind="plugin", reason=f"the answer of a plugin: {exc}"), MAX_REQUEST)


def _receive(connection: socket.socket) -> Request:
    length = int.from_bytes(_exactly(connection, LENGTH), "big")
    if length > MAX_REQUEST:
        raise EOFError("no request is so long")
    request = decode(_exactly(connection, length))
    assert isinstance(request, Request)
    return request


def _exactly(connection: socket.socket, size: int) -> bytearray:
    """Raises `EOFError` when the peer is gone."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError("the peer is gone")
        view = view[count:]
    return data
