"""Text as numbers without a vocabulary to agree on: each token is hashed to one of a fixed number of ids.

No file is needed and no table shared: the id of a token is a function of its letters, so all peers that read
one manifest have the same ids. Two tokens may share one; the larger the vocabulary, the fewer do.
Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.table import MAX_BYTES, Table, is_text
from plugins.preprocessing.transforms.base import Fitted, FittedTransform

PADDING = 0  # the id behind a text that is shorter than the others
_WORD = re.compile(r"\w+|[^\w\s]")  # takes time linear in the text: no pattern comes out of a manifest


class Tokens(FittedTransform):
    """The column of text `column` as ids from 1 to `vocabulary` - 1, int64 of shape (n, `length`).

    Behind a shorter text stands 0. Text is cut at spaces, into words and signs, or into characters, after it
    is put into lower case. With `counts` a row says how often each id occurs, float32 of shape (n,
    `vocabulary`), however long the text is.
    """

    @checked_settings
    def __init__(
        self,
        *,
        column: str,
        vocabulary: Annotated[int, Field(ge=2, le=1 << 20)] = 4096,
        length: Annotated[int, Field(ge=1, le=1 << 16)] = 64,
        split: Literal["words", "spaces", "characters"] = "words",
        counts: bool = False,
    ) -> None:
        self.column = column
        self.vocabulary = vocabulary
        self.length = length
        self.split = split
        self.counts = counts
        self.text: Sequence[str] = (column,)

    def fit(self, train: Table) -> Fitted:
        """As `FittedTransform.fit`; there is nothing to fit."""
        return self._apply

    def _apply(self, table: Table) -> Table:
        [column] = table.select([self.column]).values()
        if not is_text(column):
            raise DataError(f"{table.source}: column {self.column!r} is no text to make tokens of")
        size = len(table) * (4 * self.vocabulary if self.counts else 8 * self.length)
        if size > MAX_BYTES:
            raise DataError(f"{table.source}: the tokens take {size} bytes, over the limit of {MAX_BYTES}")
        return table.replaced({self.column: self._counted(column) if self.counts else self._ids(column)})

    def _ids(self, column: Array) -> Array:
        ids = np.full((len(column), self.length), PADDING, np.int64)
        for row, text in enumerate(column):
            found = [token_id(token, self.vocabulary) for token in self._tokens(text)[: self.length]]
            ids[row, : len(found)] = found
        return ids

    def _counted(self, column: Array) -> Array:
        counts = np.zeros((len(column), self.vocabulary), np.float32)
        for row, text in enumerate(column):
            found = [token_id(token, self.vocabulary) for token in self._tokens(text)]
            np.add.at(counts[row], found, 1)
        return counts

    def _tokens(self, text: str) -> list[str]:
        lower = text.lower()
        match self.split:
            case "words":
                return _WORD.findall(lower)
            case "spaces":
                return lower.split()
            case _:
                return list(lower)


@lru_cache(maxsize=1 << 16)
def token_id(token: str, vocabulary: int) -> int:
    """The id of a token, from 1 to `vocabulary` - 1."""
    value = int.from_bytes(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return value % (vocabulary - 1) + 1
