"""A file that grows at its end, of which neither a crash nor a failing disk leaves half an entry behind.

    append ──→ write, sync ──→ the data are part of the file
                    └── fails ──→ cut off behind what was there; a disk that fails at that, too, is asked
                                  again before the next append

A crash can only tear the end: whoever opens the file finds out where the last whole entry ends.
Everything here blocks. Raises `StorageError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from federated.errors import StorageError

if TYPE_CHECKING:
    from p2p.files import Files, OpenFile


@contextmanager
def storage_errors(place: object) -> Iterator[None]:
    """Every failure of the system leaves as `StorageError` with the place."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{place}: {exc.strerror or exc}") from exc


@contextmanager
def opened(files: Files, name: str) -> Iterator[OpenFile]:
    """The file `name` of `files`, which stays open unless the body fails."""
    file = files.open(name)
    try:
        yield file
    except BaseException:
        file.close()
        raise


class AppendFile:
    """The open `file`, which people know as `place`, as the one that writes to it has it.

    `end` is where its last whole entry ends; `torn` is whether there may be something behind it.
    """

    def __init__(self, file: OpenFile, place: str, *, end: int, torn: bool) -> None:
        self.end = end
        self._file = file
        self._place = place
        self._torn = torn

    def append(self, data: bytes) -> None:
        """Writes `data` and returns once they are on the disk: all of them or, with an error, none."""
        self.repair()
        with storage_errors(self._place):
            self._torn = True
            try:
                self._file.write(self.end, data)
                self._file.sync()
            except OSError:
                self._cut()
                raise
        self._torn = False
        self.end += len(data)

    def repair(self) -> None:
        """Cuts off what may be behind the end."""
        if self._torn:
            with storage_errors(self._place):
                self._cut()

    def clear(self) -> None:
        """Forgets all entries, also if the disk does so only before the next one."""
        self.end, self._torn = 0, True
        self.repair()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _cut(self) -> None:
        self._file.truncate(self.end)
        self._file.sync()
        self._torn = False
