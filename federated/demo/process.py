"""One `python -m p2p.peer --json` as a child process: its events, its death, its return."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from p2p.lines import LineSplitter

MAX_LINE = 1 << 22  # bytes of one event line
STOP_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
HONEST, LIAR = "p2p.peer", "federated.demo.liar"  # the programs


class PeerProcess:
    """A peer that runs `program` with its own folder, which it finds again when it is started again."""

    def __init__(
        self,
        folder: Path,
        manifests: Sequence[Path],
        log: Path,
        program: str = HONEST,
        tell: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.manifests = manifests
        self.log = log
        self.program = program
        self.tell = tell
        self.killed = False  # by us, so that its end is no surprise
        self._process: trio.Process | None = None

    async def start(self, bootstrap: Sequence[str]) -> None:
        """Starts the process; it appends to its log."""
        command = [sys.executable, "-m", self.program, "--json", "--listen", LOOPBACK]
        command += ["--data-dir", str(self.folder), "--log-level", "info"]
        for manifest in self.manifests:
            command += ["--task", str(manifest)]
        for listener in self.tell:
            command += ["--tell", listener]
        for address in bootstrap:
            command += ["--bootstrap", address]
        # one thread each: the peers share the machine, and a thread pool a peer would only fight
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the peers in order
            )
        self.killed = False

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The events of the running process, until it ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        splitter = LineSplitter(MAX_LINE)
        async for data in self._process.stdout:
            for line in splitter.receive_data(data):
                yield json.loads(line)
        await self._process.wait()

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self.killed = True
        self._process.kill()

    async def stop(self) -> None:
        """Ends the process with SIGTERM, and with SIGKILL when that is not enough."""
        if self._process is None:
            return
        self._process.terminate()
        with trio.move_on_after(STOP_GRACE):
            await self._process.wait()
        self._process.kill()
        await self._process.wait()

    def last_log_line(self) -> str:
        """The end of the log: why a peer went away."""
        try:
            lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""
