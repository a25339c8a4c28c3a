"""What one task keeps on disk: the journal of its round, and the newest certified model.

Without files nothing is kept, and every call returns at once. Everything here blocks; failures
leave as `StorageError`, and a call that failed can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from federated.errors import StorageError
from federated.journal import CheckpointStore, Journal, SavedState
from federated.rounds.archive import HISTORY
from federated.rounds.messages import Body, Certificate, MessageError
from federated.rounds.wire import decode_entry, encode_entry
from federated.workbench import digest

if TYPE_CHECKING:
    from p2p.files import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What an earlier process left: the last certificate with its model, and what was said since.

    `history` has the certificates of earlier rounds, where they are kept.
    """

    certificate: Certificate | None = None
    model: bytes | None = None
    entries: tuple[Body, ...] = ()
    history: tuple[Certificate, ...] = ()


class TaskState:
    """What the task `task` keeps in `files`; its models have at most `max_model` bytes.

    With `keeps_history` the certificates of earlier rounds are kept too: where a committee is drawn for each
    round, members that are behind need them one after the other.
    """

    def __init__(
        self, files: Files | None, task: bytes, max_model: int, *, keeps_history: bool = False
    ) -> None:
        self._files = files
        self._task = task
        self._max_model = max_model
        self._keeps_history = keeps_history
        self._journal: Journal | None = None
        self._history: Journal | None = None

    def restore(self) -> Restored:
        """Opens the folder; what is in it. A file that is damaged is refused, never guessed at."""
        if self._files is None:
            return Restored()
        try:
            self._files.make()
        except OSError as exc:
            raise StorageError(f"{self._files}: {exc.strerror or exc}") from exc
        saved = self._checkpoints().load()
        certificate = None if saved is None else self._certificate(saved)
        self.close()
        self._journal = Journal(self._files, "journal")
        entries = tuple(self._entry(record) for record in self._journal.records)
        model = None if saved is None else saved.model
        return Restored(certificate=certificate, model=model, entries=entries, history=self._open_history())

    def _open_history(self) -> tuple[Certificate, ...]:
        if not self._keeps_history or self._files is None:
            return ()
        self._history = Journal(self._files, "certificates")
        entries = [self._entry(record) for record in self._history.records]
        return tuple(entry for entry in entries if isinstance(entry, Certificate))

    def write(self, entries: Sequence[Body]) -> None:
        """Adds `entries` to the journal; they are on the disk when this returns."""
        if self._journal is not None:
            self._journal.append([encode_entry(self._task, entry) for entry in entries])

    def checkpoint(self, certificate: Certificate, model: bytes) -> None:
        """Saves both together, and then forgets the journal of the rounds that are over."""
        if self._journal is not None:
            encoded = encode_entry(self._task, certificate)
            if self._history is not None:
                self._remember(self._history, encoded)
            self._checkpoints().save(certificate.round, SavedState(certificate=encoded, model=model))
            self._journal.clear()

    def _remember(self, history: Journal, certificate: bytes) -> None:
        """Adds to the history, before the checkpoint: one more than once is harmless, a gap is not."""
        if len(history.records) >= 2 * HISTORY:  # a crash in between loses what others have too
            kept = history.records[-HISTORY:]
            history.clear()
            history.append(kept)
        history.append([certificate])

    def close(self) -> None:
        """Closes the files; not while another call runs."""
        for journal in (self._journal, self._history):
            if journal is not None:
                journal.close()
        self._journal = self._history = None

    def _checkpoints(self) -> CheckpointStore:
        assert self._files is not None
        return CheckpointStore(self._files, self._max_model)

    def _certificate(self, saved: SavedState) -> Certificate:
        certificate = self._entry(saved.certificate)
        if not isinstance(certificate, Certificate) or certificate.block.model.digest != digest(saved.model):
            raise StorageError(f"the checkpoint in {self._files} does not hold the model that it certifies")
        return certificate

    def _entry(self, record: bytes) -> Body:
        try:
            return decode_entry(self._task, record)
        except MessageError as exc:
            raise StorageError(f"{self._files}: {exc}; remove the folder to start anew") from exc
