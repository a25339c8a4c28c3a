"""What all sources of data share: where they read, what is held out, the transforms, and what comes later.

    files ──read──→ Table ──split──→ train, holdout ──transforms──→ features, labels: a `Dataset`

The data set is a function of the files (and of who the peer is, for `augment`). So data that arrive while the
peer runs are taken up by reading again: with `follow`, before each training whose files have changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from federated.errors import PluginError
from federated.plugin import Dataset, PeerContext
from plugins.preprocessing.files import Fingerprint, data_path, fingerprint
from plugins.preprocessing.pipeline import Transforms
from plugins.preprocessing.profile import profile
from plugins.preprocessing.table import Table, features, split

Name = Annotated[str, Field(min_length=1, max_length=256)]
Share = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[Sequence[dict[str, JsonValue]], Field(max_length=32)]

HOLDOUT = 0.2  # share of the examples that a peer measures by and never trains on


class Source(ABC):
    """A preprocessor that reads files; a subclass says which, and how."""

    kind = "preprocessor"

    def __init__(self, *, transforms: Steps = (), holdout: float = HOLDOUT, follow: bool = False) -> None:
        """`holdout` is the share held out where no file of its own is. Raises `PluginError`."""
        self.transforms = Transforms(transforms)
        self.holdout = holdout
        self.follow = follow
        self._seen: Fingerprint = ()

    def load(self, context: PeerContext) -> Dataset:
        """The data of this peer, (x, y) each; y is None without labels. Raises `DataError`."""
        seen = fingerprint(self.paths(context)) if self.follow else ()
        train, holdout = self.read(context)
        if holdout is None:
            train, holdout = split(train, self.holdout)
        dataset = prepared(train, holdout, self.transforms, context)
        self._seen = seen
        return dataset

    def refresh(self, context: PeerContext, dataset: Dataset) -> Dataset | None:
        """The data as they are now, None when nothing has changed. Raises `DataError`."""
        if not self.follow or fingerprint(self.paths(context)) == self._seen:
            return None
        return self.load(context)

    @abstractmethod
    def paths(self, context: PeerContext) -> list[Path]:
        """The files and folders that are read. Raises `DataError`."""

    @abstractmethod
    def read(self, context: PeerContext) -> tuple[Table, Table | None]:
        """What there is to train on, and what is held out if that stands in a file of its own."""


class FileSource(Source):
    """A source of one file or folder, and perhaps another one that is held out."""

    def __init__(
        self,
        path: str,
        holdout_path: str | None,
        *,
        transforms: Steps,
        holdout: float,
        follow: bool,
    ) -> None:
        super().__init__(transforms=transforms, holdout=holdout, follow=follow)
        self.path = path
        self.holdout_path = holdout_path

    def paths(self, context: PeerContext) -> list[Path]:
        """As `Source.paths`."""
        names = [self.path] if self.holdout_path is None else [self.path, self.holdout_path]
        return [data_path(context, name) for name in names]

    def read(self, context: PeerContext) -> tuple[Table, Table | None]:
        """As `Source.read`."""
        path, *held = self.paths(context)
        return self.read_file(path), self.read_file(held[0]) if held else None

    @abstractmethod
    def read_file(self, path: Path) -> Table:
        """One file or folder. Raises `DataError`."""


class PairSource(Source):
    """A source of a file of features and one of labels, and perhaps another two that are held out."""

    def __init__(
        self,
        settings: tuple[str, str],
        names: tuple[str, str | None],
        held: tuple[str | None, str | None],
        *,
        transforms: Steps,
        holdout: float,
        follow: bool,
    ) -> None:
        """`settings` is how a manifest calls the two `names`. Raises `PluginError`."""
        super().__init__(transforms=transforms, holdout=holdout, follow=follow)
        if any(held) and (held[0] is None or (held[1] is None) != (names[1] is None)):
            first, second = settings
            raise PluginError(f"holdout_{first} and holdout_{second} go together, as {first} and {second} do")
        self._names = names
        self._held = None if held[0] is None else (held[0], held[1])

    def paths(self, context: PeerContext) -> list[Path]:
        """As `Source.paths`."""
        return [data_path(context, name) for name in (*self._names, *(self._held or ())) if name is not None]

    def read(self, context: PeerContext) -> tuple[Table, Table | None]:
        """As `Source.read`."""
        holdout = None if self._held is None else self._read(context, *self._held)
        return self._read(context, *self._names), holdout

    def _read(self, context: PeerContext, name: str, other: str | None) -> Table:
        path = data_path(context, name)
        return self.read_pair(path, None if other is None else data_path(context, other))

    @abstractmethod
    def read_pair(self, first: Path, second: Path | None) -> Table:
        """Features from one file and labels from another. Raises `DataError`."""


def prepared(train: Table, holdout: Table | None, transforms: Transforms, context: PeerContext) -> Dataset:
    """What trainers get: the tables through the transforms, and put together. Raises `DataError`."""
    told = profile(train, holdout)
    train, holdout = transforms.run(train, holdout, context)
    return Dataset(
        train=(features(train), train.labels),
        holdout=None if holdout is None else (features(holdout), holdout.labels),
        examples=len(train),
        profile=told,
    )
