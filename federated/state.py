"""What one task keeps on disk: the journal of its round, the newest certified model, the whole chain.

    journal        what was said in the round in progress       forgotten now and then, when it is over
    accusations    evidence against members, blocks that are
                   said to be frauds, and that we leave          kept
    certificates   of all rounds so far                          kept, for members that are behind
    checkpoint-…   the last certificate with its model           replaced
    snapshot-…     what the trainer wants back next time         replaced, see `federated.snapshots`
    privacy        how many private updates were made            replaced, see `federated.privacy`

Without files nothing outlives the process, and every call returns at once. Everything here blocks; failures
leave as `StorageError`, and a call that failed can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from federated.append import storage_errors
from federated.errors import StorageError
from federated.journal import ChainFile, CheckpointStore, Journal, SavedState
from federated.privacy import Ledger
from federated.rounds.archive import HISTORY
from federated.rounds.committee import Membership
from federated.rounds.messages import Accuse, Body, Certificate, Change, Fraud, Leave, MessageError
from federated.rounds.wire import decode_entry, encode_entry
from federated.snapshots import Snapshots
from federated.workbench import digest

if TYPE_CHECKING:
    from p2p.files import Files


CROWDED = 1 << 18  # bytes of a journal; a start reads them in some milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What an earlier process left: the last certificate with its model, and what was said since.

    `history` has the newest certificates, which may go beyond the checkpoint. `changes` has the changes of
    the membership of each block that has any, from the first round to the end of the history.
    """

    certificate: Certificate | None = None
    model: bytes | None = None
    entries: tuple[Body, ...] = ()
    history: tuple[Certificate, ...] = ()
    changes: tuple[tuple[Change, ...], ...] = ()

    def membership(self, first: Membership) -> Membership:
        """The members at the end of the history; `first` are those of the manifest."""
        for changes in self.changes:
            first = first.apply(changes)
        return first


class TaskState:
    """What the task `task` keeps in `files`; its models have at most `max_model` bytes.

    `admitted` is the chain that ends with our admission, for who comes later.
    """

    def __init__(
        self, files: Files | None, task: bytes, max_model: int, admitted: Sequence[Certificate] = ()
    ) -> None:
        self._files = files
        self._task = task
        self._max_model = max_model
        self._admitted = tuple(admitted)
        self._journal: Journal | None = None
        self._accusations: Journal | None = None
        self._chain: ChainFile | None = None
        self.snapshots = Snapshots(files, task, max_model)
        self.ledger = Ledger(files, task)
        self._recent: dict[int, bytes] = {}  # without files: the newest certificates, by round

    def restore(self) -> Restored:
        """Opens the folder; what is in it. A file that is damaged is refused, never guessed at."""
        if self._files is None:
            known = tuple(item.block.changes for item in self._admitted if item.block.changes)
            return Restored(history=self._admitted[-HISTORY:], changes=known)
        with storage_errors(self._files):
            self._files.make()
        self.ledger.open()
        saved = self._checkpoints().load()
        certificate = None if saved is None else self._certificate(saved)
        self.close()
        self._journal = Journal(self._files, "journal")
        self._accusations = Journal(self._files, "accusations")
        self._chain = ChainFile(self._files, "certificates")
        self._extend(self._chain, self._admitted)
        if certificate is not None:
            self._extend(self._chain, [certificate])
        history, changes = self._read_chain(self._chain)
        records = [*self._accusations.records, *self._journal.records]
        return Restored(
            certificate=certificate,
            model=None if saved is None else saved.model,
            entries=tuple(self._entry(record) for record in records),
            history=history,
            changes=changes,
        )

    def peek(self) -> Restored:
        """`restore`, and everything is closed again."""
        try:
            return self.restore()
        finally:
            self.close()

    def _read_chain(self, chain: ChainFile) -> tuple[tuple[Certificate, ...], tuple[tuple[Change, ...], ...]]:
        """(the newest certificates, the changes of all)."""
        history, changes = list[Certificate](), list[tuple[Change, ...]]()
        parent = self._task
        for first in range(0, len(chain), HISTORY):
            for number, record in enumerate(chain.read(first, HISTORY), start=first + 1):
                entry = self._entry(record)
                if not isinstance(entry, Certificate) or (entry.round, entry.block.parent) != (
                    number,
                    parent,
                ):
                    raise StorageError(
                        f"{self._files}: the chain breaks at round {number}; remove the folder"
                    )
                parent = entry.block.hash
                history.append(entry)
                if entry.block.changes:
                    changes.append(entry.block.changes)
            history = history[-HISTORY:]
        return tuple(history), tuple(changes)

    def write(self, entries: Sequence[Body]) -> None:
        """Adds `entries` to the journals; they are on the disk when this returns."""
        kept = [entry for entry in entries if isinstance(entry, Accuse | Fraud | Leave)]
        if self._accusations is not None and kept:
            self._accusations.append([encode_entry(self._task, entry) for entry in kept])
        rest = [entry for entry in entries if entry not in kept]
        if self._journal is not None and rest:
            self._journal.append([encode_entry(self._task, entry) for entry in rest])

    def checkpoint(self, certificate: Certificate, chain: Sequence[Certificate], model: bytes) -> None:
        """As `save`, and then forgets the journal of the rounds that are over."""
        self.save(certificate, chain, model)
        self.forget()

    @property
    def is_crowded(self) -> bool:
        """Whether the journal has so much of rounds that are over that it is time to forget it."""
        return self._journal is not None and self._journal.size > CROWDED

    def forget(self) -> None:
        """Forgets the journal: all of its rounds are in a checkpoint."""
        if self._journal is not None:
            self._journal.clear()

    def save(self, certificate: Certificate, chain: Sequence[Certificate], model: bytes) -> None:
        """Saves certificate and model together; meanwhile others may `write`.

        `chain` leads from the last checkpoint to the certificate. What leads there is saved before the
        checkpoint and its own certificate behind it: so the chain has no gap, and its end has a model.
        """
        if self._chain is not None:
            encoded = encode_entry(self._task, certificate)
            self._extend(self._chain, [item for item in chain if item.round < certificate.round])
            self._checkpoints().save(certificate.round, SavedState(certificate=encoded, model=model))
            self._extend(self._chain, [certificate])
        else:
            self._recent |= {item.round: encode_entry(self._task, item) for item in chain}
            for old in list(self._recent)[:-HISTORY]:
                del self._recent[old]

    def certificates(self, first: int, count: int) -> list[bytes]:
        """The encoded certificates of up to `count` rounds from round `first` on, as far as they are kept."""
        if self._chain is not None:
            return self._chain.read(first - 1, count)
        rounds = range(first, first + count)
        return [self._recent[number] for number in rounds if number in self._recent]

    def _extend(self, chain: ChainFile, certificates: Sequence[Certificate]) -> None:
        """Adds those that are not in the chain yet."""
        news = [item for item in certificates if item.round > len(chain)]
        if news and news[0].round > len(chain) + 1:
            raise StorageError(
                f"{self._files}: the chain ends at round {len(chain)}, too early; remove the folder"
            )
        if news:
            chain.append([encode_entry(self._task, item) for item in news])

    def close(self) -> None:
        """Closes the files; not while another call runs."""
        for file in (self._journal, self._accusations, self._chain):
            if file is not None:
                file.close()
        self._journal = self._accusations = self._chain = None

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
