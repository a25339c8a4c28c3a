"""IDX files, MNIST's own format: two zero bytes, the type, the number of dimensions, their sizes, the values.

Sizes are four bytes, values of the types below, all big-endian. A file whose name ends in `.gz` is unpacked,
and never to more than its header says. Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.files import check_size, reading
from plugins.preprocessing.source import HOLDOUT, Name, PairSource, Share, Steps
from plugins.preprocessing.table import MAX_BYTES, Table, make_table

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_RANK = 8  # dimensions
MAX_RATIO = 1032  # bytes that one byte unpacks to at most: deflate's, zlib's documentation
WHITE = 255  # of pixels in one byte


class Idx(PairSource):
    """The preprocessor of a file of images and one of labels; pixels of one byte become 0 to 1 in float32."""

    @checked_settings
    def __init__(
        self,
        *,
        images: Name,
        labels: Name,
        holdout: Share = HOLDOUT,
        holdout_images: Name | None = None,
        holdout_labels: Name | None = None,
        follow: bool = False,
        transforms: Steps = (),
    ) -> None:
        super().__init__(
            ("images", "labels"),
            (images, labels),
            (holdout_images, holdout_labels),
            transforms=transforms,
            holdout=holdout,
            follow=follow,
        )

    def read_pair(self, first: Path, second: Path | None) -> Table:
        """As `PairSource.read_pair`."""
        assert second is not None  # it is no option
        return _pair(first, second)


def _pair(images: Path, labels: Path) -> Table:
    x, y = read_idx(images), read_idx(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(f"{labels}: {y.ndim} dimensions of {y.dtype.name} are no list of labels")
    if len(x) != len(y):
        raise DataError(f"{images} has {len(x)} examples and {labels} has {len(y)}")
    pixels = x if x.dtype.kind == "f" else x.astype(np.float32)
    if x.dtype == np.uint8:
        pixels /= np.float32(WHITE)
    return make_table({"image": pixels}, y.astype(np.int64), str(images), unit="image")


def read_idx(path: Path) -> Array:
    """The array in a file, in the machine's byte order. Raises `DataError`."""
    size = check_size(path)
    try:
        with reading(path):
            if path.suffix == ".gz":
                with gzip.open(path) as unpacked:
                    return _parse(path, cast("BinaryIO", unpacked), size * MAX_RATIO)
            with path.open("rb") as file:
                return _parse(path, file, size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise DataError(f"{path} is damaged: {exc}") from exc


def _parse(path: Path, file: BinaryIO, most: int) -> Array:
    """The array; `file` cannot hold more than `most` bytes."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= MAX_RANK:
        raise DataError(f"{path} is not an IDX file: it begins with {magic.hex() or 'nothing'}")
    sides = file.read(4 * magic[3])
    if len(sides) < 4 * magic[3]:
        raise DataError(f"{path} is cut short in its header")
    dtype: np.dtype[Any] = np.dtype(TYPES[magic[2]])
    shape = tuple(int(side) for side in np.frombuffer(sides, ">u4"))
    size = math.prod(shape) * dtype.itemsize
    if size > min(most, MAX_BYTES):
        raise DataError(f"{path}: its header promises {size} bytes, more than there can be")
    data = file.read(size + 1)
    if len(data) != size:
        raise DataError(
            f"{path}: its header promises {size} bytes, there are {'fewer' if len(data) < size else 'more'}"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
