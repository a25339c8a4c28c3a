"""The SQLite file behind the peerstore: what outlives the process.

Blocking; callers run it in a worker thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from p2p.errors import InvalidInput

SCHEMA = """
CREATE TABLE IF NOT EXISTS addresses (
    peer BLOB NOT NULL, address BLOB NOT NULL, expires REAL NOT NULL,  -- unix seconds
    PRIMARY KEY (peer, address)
) WITHOUT ROWID
"""

AddressRow = tuple[bytes, bytes, float]


class AddressFile:
    """Addresses of peers in a SQLite file."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises `InvalidInput` when it cannot be used."""
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(SCHEMA)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as exc:
            raise InvalidInput(f"cannot use {path}: {exc}; move it away and start again") from exc

    def load(self, now: float) -> list[AddressRow]:
        """The rows (peer, address, expiry) that have not expired at `now`, in a fixed order."""
        query = "SELECT peer, address, expires FROM addresses WHERE expires > ? ORDER BY peer, address"
        return self._db.execute(query, (now,)).fetchall()

    def save(self, rows: Sequence[AddressRow]) -> None:
        """Replaces everything by `rows`, at once or not at all. Raises `sqlite3.Error`."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("DELETE FROM addresses")
            self._db.executemany("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", rows)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
