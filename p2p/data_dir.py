"""A peer's folder: its identity, and a lock so that two processes never share one identity."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2p.errors import InvalidInput, InvalidKey
from p2p.files import FolderFiles
from p2p.keys import KeyPair

IDENTITY = "identity.key"  # the serialized PrivateKey, as other libp2p tools write it
LOCK = "lock"


@contextmanager
def open_data_dir(path: Path) -> Iterator[KeyPair]:
    """The identity in the folder `path`, which is ours alone until the block ends.

    Makes the folder and a fresh identity when there is none. Raises `InvalidInput` with what to do.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise InvalidInput(f"cannot use the data folder {path}: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise InvalidInput(
                f"the data folder {path} is in use by another peer; stop it or choose another --data-dir"
            ) from exc
        yield load_identity(path / IDENTITY)
    finally:
        os.close(lock)


def load_identity(path: Path) -> KeyPair:
    """The key in the file `path`, made when the file does not exist.

    Raises `InvalidInput` when it cannot be read or holds no key: an identity is never replaced.
    """
    try:
        encoded = path.read_bytes()
    except FileNotFoundError:
        return _create_identity(path)
    except OSError as exc:
        raise InvalidInput(f"cannot read the identity {path}: {exc.strerror}") from exc
    try:
        return KeyPair.decode(encoded)
    except InvalidKey as exc:
        raise InvalidInput(
            f"{path} holds no usable key ({exc}); restore it, or remove it for a new identity"
        ) from exc


def _create_identity(path: Path) -> KeyPair:
    pair = KeyPair.generate()
    try:
        save_identity(path, pair)
    except OSError as exc:
        raise InvalidInput(f"cannot write the identity {path}: {exc.strerror}") from exc
    return pair


def save_identity(path: Path, pair: KeyPair) -> None:
    """Writes `pair` to the file `path`, which is there whole or not at all. Raises `OSError`."""
    FolderFiles(path.parent).write_durably(path.name, pair.encode())
