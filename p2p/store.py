"""The SQLite file behind the peerstore: what outlives the process.

Blocking; callers run it in a worker thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from p2p.errors import InvalidInput

SCHEMA_VERSION = 1  # PRAGMA user_version; 0 is an empty file, or one with addresses alone

SCHEMA = """
CREATE TABLE IF NOT EXISTS addresses (
    peer BLOB NOT NULL, address BLOB NOT NULL, expires REAL NOT NULL,  -- unix seconds
    PRIMARY KEY (peer, address)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    peer BLOB NOT NULL PRIMARY KEY, envelope BLOB NOT NULL  -- lives as long as the peer's addresses
) WITHOUT ROWID;
"""

AddressRow = tuple[bytes, bytes, float]
RecordRow = tuple[bytes, bytes]


class PeerFile:
    """Addresses and signed records of peers in a SQLite file."""

    def __init__(self, path: Path) -> None:
        """Opens the file, brings it to the present schema, or makes it.

        Raises `InvalidInput` when it cannot be used or a newer version of the program wrote it.
        """
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version > SCHEMA_VERSION:
                    raise InvalidInput(f"cannot use {path}: a newer version of atcp wrote it; update atcp")
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
                )
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as exc:
            raise InvalidInput(f"cannot use {path}: {exc}; move it away and start again") from exc

    def load(self, now: float) -> tuple[list[AddressRow], list[RecordRow]]:
        """Rows (peer, address, expiry) that have not expired at `now`, and (peer, envelope) of these peers.

        Both in a fixed order. Raises `sqlite3.Error`.
        """
        query = "SELECT peer, address, expires FROM addresses WHERE expires > ? ORDER BY peer, address"
        addresses = self._db.execute(query, (now,)).fetchall()
        query = (
            "SELECT peer, envelope FROM records WHERE peer IN"
            " (SELECT peer FROM addresses WHERE expires > ?) ORDER BY peer"
        )
        return addresses, self._db.execute(query, (now,)).fetchall()

    def save(self, addresses: Sequence[AddressRow], records: Sequence[RecordRow]) -> None:
        """Replaces everything, at once or not at all. Raises `sqlite3.Error`."""
        with _Transaction(self._db):
            self._db.execute("DELETE FROM addresses")
            self._db.execute("DELETE FROM records")
            self._db.executemany("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", addresses)
            self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", records)

    def purge(self, now: float) -> None:
        """Deletes what has expired at `now`. Raises `sqlite3.Error`."""
        with _Transaction(self._db):
            self._db.execute("DELETE FROM addresses WHERE expires <= ?", (now,))
            self._db.execute("DELETE FROM records WHERE peer NOT IN (SELECT peer FROM addresses)")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


class _Transaction:
    """Commits when the body ends, undoes it all when it fails."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
