"""One plugin process, seen from the peer: started, asked, and ended with all that it has started.

Everything here blocks and is for the worker threads of `federated.compute`.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from federated.errors import PluginError
from federated.isolation.limits import DUMP_SIGNAL, resident
from federated.isolation.traces import MAX_TRACE, where
from federated.isolation.wire import LENGTH, Reply, Request, WireError, decode, encode

PAGE_SIZE = 16  # bytes; `federated.isolation.child.PAGE`
LOOK = 0.05  # seconds between two looks at whether to stop
WEIGH = 1.0  # seconds between two looks at the memory, which read the whole table of processes
LAST_WORDS = 1.0  # seconds in which a process that hangs may write where
END_GRACE = 5.0  # seconds until a process that was killed is gone; longer only while the disk hangs
CHUNK = 1 << 20  # bytes that are sent at once

Stop = Callable[[], float | None]
"""Asked again and again while an answer is awaited: the seconds that are left, None for no end."""


class ProcessLost(PluginError):
    """The process ended, or was ended, before it answered; the message says how."""


class PluginProcess:
    """A process with `memory` bytes; its answers have at most `limit` bytes."""

    def __init__(self, memory: int, limit: int) -> None:
        self._memory = memory
        self._limit = limit
        page, trace = os.memfd_create("atcp-page"), os.memfd_create("atcp-trace")
        lifeline, self._lifeline = os.pipe()
        here, there = socket.socketpair()
        try:
            os.ftruncate(page, PAGE_SIZE)
            self._page = mmap.mmap(page, PAGE_SIZE)
            self._process = _start([there.fileno(), page, lifeline, trace], memory)
        except OSError as exc:
            here.close()
            os.close(self._lifeline)
            os.close(trace)
            raise PluginError(f"no plugin process can be started: {exc}") from exc
        finally:
            there.close()
            os.close(page)
            os.close(lifeline)
        here.setblocking(False)
        self._link = here
        self._trace = trace
        self._pidfd = os.pidfd_open(self._process.pid)
        self._weighed = time.monotonic()
        self.is_closed = False

    @property
    def steps(self) -> int:
        """Of the newest training, so far."""
        return int(struct.unpack_from("<Q", self._page, 8)[0])

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked; what ended by itself since the last answer cannot."""
        return not self.is_closed and self._process.poll() is None

    def stop(self) -> None:
        """Asks the training under way to stop."""
        self._page[0] = 1

    def ask(self, request: Request, left: Stop) -> Reply:
        """The answer. Raises `ProcessLost` when none comes in time, or none that is one."""
        struct.pack_into("<B7xQ", self._page, 0, 0, 0)
        try:
            for part in encode(request, sys.maxsize):
                self._send(part, left)
            length = int.from_bytes(self._receive(LENGTH, left), "big")
            if length > self._limit:
                raise WireError(f"{length} bytes are over the limit of {self._limit}")
            reply = decode(self._receive(length, left))
            assert not isinstance(reply, Request)
        except (WireError, AssertionError) as exc:
            raise self._lost(f"answers what is no answer: {exc}") from exc
        return reply

    def close(self) -> None:
        """Ends the process and what it has started, unless that has left its process group."""
        if self.is_closed:
            return
        self.is_closed = True
        self.kill()
        with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and ends when that lets it go
            self._process.wait(END_GRACE)
        for descriptor in (self._lifeline, self._trace, self._pidfd):
            os.close(descriptor)
        self._link.close()

    def kill(self) -> None:
        """Ends the process group; also from another thread than the one that waits for an answer."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    # Bytes, as long as there is time

    def _send(self, data: bytes, left: Stop) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._link.send(view[:CHUNK]) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, left)
            except OSError as exc:
                raise self._ended("takes no more requests") from exc

    def _receive(self, size: int, left: Stop) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                count = self._link.recv_into(view)
            except BlockingIOError:
                self._wait(select.POLLIN, left)
                continue
            except OSError:
                count = 0
            if not count:
                raise self._ended("has closed its end")
            view = view[count:]
        return data

    def _wait(self, event: int, left: Stop) -> None:
        """Returns when there may be something to do. Raises `ProcessLost`."""
        poll = select.poll()
        poll.register(self._link, event)
        poll.register(self._pidfd, select.POLLIN)
        while True:
            remaining = left()
            if remaining is not None and remaining <= 0:
                raise self._lost("did not come to an end in time and was killed", hangs=True)
            found = poll.poll(1000 * (LOOK if remaining is None else min(LOOK, remaining)))
            if any(descriptor == self._link.fileno() for descriptor, _ in found):
                return
            if found:
                raise self._ended("has ended")
            if time.monotonic() - self._weighed > WEIGH:
                self._weigh()

    def _weigh(self) -> None:
        taken = resident(self._process.pid)
        self._weighed = time.monotonic()
        if taken > self._memory:
            had = f"{taken / (1 << 20):.0f} of {self._memory / (1 << 20):.0f} MiB"
            raise self._lost(f"took too much memory, {had}, and was killed; see --plugin-memory", hangs=True)

    # The end

    def _lost(self, how: str, *, hangs: bool = False) -> ProcessLost:
        """Ends the process; the error that says `how` it came to that, and where it hangs if it does."""
        if hangs:
            self._ask_where()
        trace = os.pread(self._trace, MAX_TRACE, max(0, os.fstat(self._trace).st_size - MAX_TRACE))
        self.close()
        return ProcessLost(f"the plugin process {how}{where(trace.decode('utf-8', 'replace'))}")

    def _ended(self, how: str) -> ProcessLost:
        """The error for a process that is ending by itself, or at least did `how`."""
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(LAST_WORDS)
            how = f"ended with exit status {status}"
            if status == -signal.SIGKILL:
                how = "was killed from outside: the machine may have run out of memory"
            elif status < 0:
                how = f"ended with signal {-status}, {signal.strsignal(-status)}"
        return self._lost(how)

    def _ask_where(self) -> None:
        before = os.fstat(self._trace).st_size
        end = time.monotonic() + LAST_WORDS
        self._process.send_signal(DUMP_SIGNAL)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        while time.monotonic() < end and os.fstat(self._trace).st_size == before:
            if poll.poll(5):
                break
        poll.poll(5)  # the rest of what it writes


def _start(descriptors: Sequence[int], memory: int) -> subprocess.Popen[bytes]:
    """The process: no terminal, no input, its output where our log goes; and the modules that we find."""
    command = [sys.executable, "-P", "-m", "federated.isolation", *map(str, descriptors), str(memory)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        pass_fds=descriptors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path)},
        start_new_session=True,
    )
