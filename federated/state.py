"""What one task keeps on disk: the journal of its round, and the newest certified model.

Without a folder nothing is kept, and every call returns at once. Everything here blocks; failures
leave as `StorageError`, and a call that failed can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from federated.errors import StorageError
from federated.journal import CheckpointStore, Journal, SavedState
from federated.rounds.messages import Body, Certificate, MessageError
from federated.rounds.wire import decode_entry, encode_entry
from federated.workbench import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What an earlier process left: the last certificate with its model, and what was said since."""

    certificate: Certificate | None = None
    model: bytes | None = None
    entries: tuple[Body, ...] = ()


class TaskState:
    """The files of the task `task` in `folder`; its models have at most `max_model` bytes."""

    def __init__(self, folder: Path | None, task: bytes, max_model: int) -> None:
        self._folder = folder
        self._task = task
        self._max_model = max_model
        self._journal: Journal | None = None

    def restore(self) -> Restored:
        """Opens the folder; what is in it. A file that is damaged is refused, never guessed at."""
        if self._folder is None:
            return Restored()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(f"{self._folder}: {exc.strerror or exc}") from exc
        saved = self._checkpoints().load()
        certificate = None if saved is None else self._certificate(saved)
        self.close()
        self._journal = Journal(self._folder / "journal")
        entries = tuple(self._entry(record) for record in self._journal.records)
        return Restored(
            certificate=certificate, model=None if saved is None else saved.model, entries=entries
        )

    def write(self, entries: Sequence[Body]) -> None:
        """Adds `entries` to the journal; they are on the disk when this returns."""
        if self._journal is not None:
            self._journal.append([encode_entry(self._task, entry) for entry in entries])

    def checkpoint(self, certificate: Certificate, model: bytes) -> None:
        """Saves both together, and then forgets the journal of the rounds that are over."""
        if self._journal is not None:
            encoded = encode_entry(self._task, certificate)
            self._checkpoints().save(certificate.round, SavedState(certificate=encoded, model=model))
            self._journal.clear()

    def close(self) -> None:
        """Closes the files; not while another call runs."""
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def _checkpoints(self) -> CheckpointStore:
        assert self._folder is not None
        return CheckpointStore(self._folder, self._max_model)

    def _certificate(self, saved: SavedState) -> Certificate:
        certificate = self._entry(saved.certificate)
        if not isinstance(certificate, Certificate) or certificate.block.model.digest != digest(saved.model):
            raise StorageError(f"the checkpoint in {self._folder} does not hold the model that it certifies")
        return certificate

    def _entry(self, record: bytes) -> Body:
        try:
            return decode_entry(self._task, record)
        except MessageError as exc:
            raise StorageError(f"{self._folder}: {exc}; remove the folder to start anew") from exc
