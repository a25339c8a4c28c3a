"""What a transform is, and what its settings are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from federated.plugin import PeerContext
from plugins.preprocessing.table import Table

Columns = Annotated[Sequence[str], Field(min_length=1, max_length=1 << 16)]
Fitted = Callable[[Table], Table]


class Transform(ABC):
    """Changes tables. `text` names the columns that it takes as text."""

    text: Sequence[str] = ()

    @abstractmethod
    def run(self, train: Table, holdout: Table | None, context: PeerContext) -> tuple[Table, Table | None]:
        """Both parts, changed. Raises `DataError`."""


class FittedTransform(Transform):
    """Changes both parts in the same way."""

    @abstractmethod
    def fit(self, train: Table) -> Fitted:
        """What changes a table, as the part that is trained on tells it. Raises `DataError`."""

    def run(self, train: Table, holdout: Table | None, context: PeerContext) -> tuple[Table, Table | None]:
        """As `Transform.run`."""
        apply = self.fit(train)
        return apply(train), None if holdout is None else apply(holdout)
