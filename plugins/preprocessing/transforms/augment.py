"""More images than there are: copies that are mirrored, moved and made noisy, for training only."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import PurePath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federated.errors import DataError
from federated.plugin import PeerContext, checked_settings
from plugins.preprocessing.table import MAX_BYTES, Table
from plugins.preprocessing.transforms.base import Transform

MAX_COPIES = 64  # of one image


class Augment(Transform):
    """Adds `copies` of each image: mirrored half of the time (`flip`), moved, and with noise added.

    An image is moved by up to `shift` pixels each way, and 0 comes in at the edge; `noise` is a standard
    deviation. What is drawn is a function of the peer and of the images alone, so a peer that is started
    again has the same copies.
    """

    @checked_settings
    def __init__(
        self,
        *,
        copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] = 1,
        flip: bool = False,
        shift: Annotated[int, Field(ge=0, le=1 << 10)] = 0,
        noise: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        self.copies = copies
        self.flip = flip
        self.shift = shift
        self.noise = noise

    def run(self, train: Table, holdout: Table | None, context: PeerContext) -> tuple[Table, Table | None]:
        """More images to train on; those that are held out stay as they are. Raises `DataError`."""
        images = {name: column for name, column in train.columns.items() if column.ndim in (3, 4)}
        if len(images) != 1 or len(train.columns) != 1:
            raise DataError(f"{train.source}: augment takes one column of images, before they are flattened")
        [(name, column)] = images.items()
        if column.nbytes * (self.copies + 1) > MAX_BYTES:
            raise DataError(f"{train.source}: {self.copies} copies of each image are over {MAX_BYTES} bytes")
        seed = hashlib.sha256(f"{context.peer} {PurePath(train.source).name}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8], "big")))
        parts = [column, *(self._changed(column, generator) for _ in range(self.copies))]
        rows = np.tile(np.arange(len(train)), self.copies + 1)
        grown = replace(train, columns={}).take(rows)
        return replace(grown, columns={name: np.concatenate(parts)}), holdout

    def _changed(self, images: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
        changed = np.zeros_like(images)
        mirrored = generator.random(len(images)) < 0.5 if self.flip else np.zeros(len(images), bool)
        moves = generator.integers(-self.shift, self.shift, (len(images), 2), endpoint=True)
        height, width = images.shape[1:3]
        for row, (image, (down, right)) in enumerate(zip(images, moves, strict=True)):
            source = image[:, ::-1] if mirrored[row] else image
            (into_y, from_y), (into_x, from_x) = _overlap(int(down), height), _overlap(int(right), width)
            changed[row, into_y, into_x] = source[from_y, from_x]
        if self.noise:
            changed += (self.noise * generator.standard_normal(changed.shape)).astype(changed.dtype)
        return changed


def _overlap(move: int, size: int) -> tuple[slice, slice]:
    """Where what stays in the picture goes to, and where it comes from."""
    stays = max(size - abs(move), 0)
    begin, end = max(move, 0), max(-move, 0)
    return slice(begin, begin + stays), slice(end, end + stays)
