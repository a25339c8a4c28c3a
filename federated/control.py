"""How `atcp task` talks to the running peer of a data folder: a unix socket in it, one line each way.

    ──→ {"command": "status", …}\\n     ←── {"result": …}\\n  or  {"error": "one line"}\\n

The socket is readable and writable by its owner alone, who may do everything anyway. A folder serves one
peer at a time, so a socket that is there when a peer starts is a dead one's, and is replaced.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from federated.errors import FederatedError
from p2p.errors import InvalidInput, P2PError
from p2p.lines import LineSplitter
from p2p.scope import open_scope

NAME = "control"  # of the socket in the data folder
MAX_REQUEST = 1 << 19  # bytes of one line; a task file has up to 256 KiB
MAX_ANSWER = 1 << 22  # bytes of one line; the status of some tasks of 1024 members
READ_SIZE = 65536  # bytes
REQUEST_TIMEOUT = 5.0  # seconds from the connection to the whole request
ANSWER_TIMEOUT = 60.0  # seconds for the answer; a task may have to be found in the network first
MAX_CONNECTIONS = 16  # at once; people type slowly
BACKLOG = 16  # connections that wait to be accepted
MAX_PATH = 100  # bytes; a socket's path has at most 104 (macOS) or 108 (Linux), unix(7)

Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]

logger = logging.getLogger(__name__)


class ControlError(FederatedError):
    """The peer could not do what it was asked to; the message is its answer, one line."""


@asynccontextmanager
async def open_control(data_dir: Path, handle: Handler) -> AsyncIterator[None]:
    """Answers commands with what `handle(command, arguments)` returns, while the body runs.

    What it raises of our own errors is the answer too. Raises `InvalidInput` when there can be no socket.
    """
    path = data_dir / NAME
    listener = _listen(path)
    try:
        async with open_scope() as nursery:
            nursery.start_soon(_accept, listener, handle)
            yield
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            path.unlink()


async def call(data_dir: Path, command: str, **arguments: Any) -> Any:
    """What the peer that runs in `data_dir` answers to `command`.

    Raises `ControlError` with its reason when it cannot, and `InvalidInput` when there is no such peer.
    """
    request = json.dumps({"command": command, **arguments}).encode() + b"\n"
    if len(request) > MAX_REQUEST:
        raise InvalidInput(f"a command of {len(request)} bytes is over the limit of {MAX_REQUEST}")
    try:
        with trio.fail_after(ANSWER_TIMEOUT + REQUEST_TIMEOUT), _reachable(data_dir / NAME) as address:
            async with await trio.open_unix_socket(address) as stream:
                await stream.send_all(request)
                line = await _receive_line(stream, MAX_ANSWER)
    except OSError as exc:
        raise InvalidInput(
            f"no peer runs in {data_dir}; start one with: python -m p2p.peer --data-dir {data_dir}"
        ) from exc
    except trio.TooSlowError as exc:
        raise ControlError(f"the peer in {data_dir} does not answer") from exc
    except trio.BrokenResourceError as exc:
        raise ControlError(f"the peer in {data_dir} went away") from exc
    match json.loads(line) if line is not None else None:
        case {"result": result}:
            return result
        case {"error": str(reason)}:
            raise ControlError(reason)
    raise ControlError(f"the peer in {data_dir} went away")


def is_running(data_dir: Path) -> bool:
    """Whether a peer listens in `data_dir`."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(OSError), client, _reachable(data_dir / NAME) as address:
        client.connect(address)
        return True
    return False


async def _accept(listener: trio.socket.SocketType, handle: Handler) -> None:
    limit = trio.Semaphore(MAX_CONNECTIONS)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await _serve(stream, handle)
        finally:
            limit.release()

    async with trio.open_nursery() as nursery:
        while True:
            await limit.acquire()
            accepted, _ = await listener.accept()
            nursery.start_soon(serve, trio.SocketStream(accepted))


async def _serve(stream: trio.SocketStream, handle: Handler) -> None:
    """Answers one command. Whoever asks and goes away costs nothing but its connection."""
    try:
        with trio.fail_after(REQUEST_TIMEOUT):
            line = await _receive_line(stream, MAX_REQUEST)
        if line is None:
            return
        with trio.fail_after(ANSWER_TIMEOUT):
            await stream.send_all(json.dumps(await _answer(line, handle)).encode() + b"\n")
    except (trio.TooSlowError, trio.BrokenResourceError, ControlError) as exc:
        logger.info("a command is not answered: %s", exc or "it took too long")


async def _answer(line: bytes, handle: Handler) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "not a command: not JSON"}
    match request:
        case {"command": str(command)}:
            arguments = {name: value for name, value in request.items() if name != "command"}
            try:
                return {"result": await handle(command, arguments)}
            except (FederatedError, P2PError, OSError) as exc:
                return {"error": (str(exc).splitlines() or [type(exc).__name__])[0]}
    return {"error": "not a command"}


async def _receive_line(stream: trio.SocketStream, limit: int) -> bytes | None:
    """The first line; None when the stream ends before. Raises `ControlError` for one that is too long."""
    splitter = LineSplitter(limit)
    while data := await stream.receive_some(READ_SIZE):
        for line in splitter.receive_data(data):
            return line
        if splitter.dropped:
            raise ControlError(f"a line is over the limit of {limit} bytes")
    return None


def _listen(path: Path) -> trio.socket.SocketType:
    """A socket that listens at `path`, whose owner alone may connect. Raises `InvalidInput`."""
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise InvalidInput(f"{path} is in the way of the peer's socket; move it elsewhere")
        path.unlink(missing_ok=True)
        with _reachable(path) as address:
            bound = socket.socket(fileno=os.dup(listener.fileno()))
            with bound:
                bound.bind(address)
                path.chmod(0o600)  # before it listens, nobody can connect
                bound.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise InvalidInput(f"cannot listen at {path}: {exc.strerror or exc}") from exc
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """An address for the socket at `path`: itself, or where that is too long a way through its folder."""
    if len(os.fsencode(path)) <= MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
