"""Files and a pubsub that count what is done with them, and end the process at one of these moments.

Each change of a file is two moments: before it, and, where it is not durable yet, behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2p.files import Files, OpenFile

Tick = Callable[[str], None]  # (what is about to be done)


class DeadlyFiles:
    """The files of `files`; `tick` is called before each change of one."""

    def __init__(self, files: Files, tick: Tick) -> None:
        self._files = files
        self._tick = tick

    def __str__(self) -> str:
        return str(self._files)

    @property
    def blocking(self) -> bool:
        """As the files."""
        return self._files.blocking

    def sub(self, name: str) -> DeadlyFiles:
        """As `Files.sub`."""
        return DeadlyFiles(self._files.sub(name), self._tick)

    def make(self) -> None:
        """As `Files.make`."""
        self._tick("make")
        self._files.make()

    def entries(self) -> list[tuple[str, int]]:
        """As `Files.entries`."""
        return self._files.entries()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        return self._files.read(name, offset, length)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """As `Files.read_into`."""
        return self._files.read_into(name, offset, buffer)

    def write(self, name: str, data: bytes) -> None:
        """As `Files.write`."""
        self._tick(f"write {name}")
        self._files.write(name, data)

    def write_durably(self, name: str, data: bytes) -> None:
        """As `Files.write_durably`."""
        self._tick(f"write {name} durably")
        self._files.write_durably(name, data)

    def remove(self, name: str) -> None:
        """As `Files.remove`."""
        self._tick(f"remove {name}")
        self._files.remove(name)

    def open(self, name: str) -> OpenFile:
        """As `Files.open`."""
        self._tick(f"open {name}")
        return _DeadlyFile(self._files.open(name), name, self._tick)


class _DeadlyFile:
    def __init__(self, file: OpenFile, name: str, tick: Tick) -> None:
        self._file = file
        self._name = name
        self._tick = tick

    def write(self, offset: int, *pieces: bytes | memoryview) -> None:
        self._tick(f"write into {self._name}")
        self._file.write(offset, *pieces)

    def truncate(self, size: int) -> None:
        self._tick(f"truncate {self._name}")
        self._file.truncate(size)

    def sync(self) -> None:
        self._tick(f"sync {self._name}")
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class DeadlyPubsub:
    """A pubsub; `tick` is called before each message, and with `is_dead` nothing is sent any more."""

    def __init__(self, pubsub: Any, tick: Tick, is_dead: Callable[[], bool]) -> None:
        self._pubsub = pubsub
        self._tick = tick
        self._is_dead = is_dead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pubsub, name)

    def publish(self, topic: str, data: bytes) -> bytes:
        """As `Pubsub.publish`."""
        self._tick("publish")
        return b"" if self._is_dead() else self._pubsub.publish(topic, data)
