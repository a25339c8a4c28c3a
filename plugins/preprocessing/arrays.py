"""A peer's own data from files of numpy arrays: one `.npz`, a folder of them, or `.npy` files.

In a `.npz`, `x` and `y` are trained on, `holdout_x` and `holdout_y` measured on when they are there. The
files never leave the machine. They may come from anywhere, so sizes are checked before anything is unpacked,
and nothing in them is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import PeerContext, checked_settings
from plugins.preprocessing.files import check_size, data_path, files_below, one_line, reading
from plugins.preprocessing.source import HOLDOUT, Name, PairSource, Share, Source, Steps
from plugins.preprocessing.table import MAX_BYTES, Table, joined, make_table

FILE = "train.npz"
FEATURE_KINDS = "fiub"  # numpy's letters: float, integer, unsigned, boolean
LABEL_KINDS = "iub"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class NpzArrays(Source):
    """The preprocessor; x becomes float32 of any shape, one row an example, and y int64.

    Without `path` the file is `train.npz`, which is the one file that lies in the data folder itself. A
    `path` to a folder stands for all the `.npz` files in it; with `follow`, new ones enter the next round.
    """

    @checked_settings
    def __init__(
        self,
        *,
        path: Name | None = None,
        holdout: Share = 0.0,
        follow: bool = False,
        transforms: Steps = (),
    ) -> None:
        super().__init__(transforms=transforms, holdout=holdout, follow=follow)
        self.path = path

    def paths(self, context: PeerContext) -> list[Path]:
        """As `Source.paths`."""
        if self.path is not None:
            return [data_path(context, self.path)]
        if context.data_dir is None:
            raise DataError(f"{FILE} is looked for in the data folder: give one with --data-dir")
        return [context.data_dir / FILE]

    def read(self, context: PeerContext) -> tuple[Table, Table | None]:
        """As `Source.read`."""
        [path] = self.paths(context)
        files = files_below(path, (".npz",)) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: there are no .npz files in it")
        parts = [_read(file) for file in files]
        held = [holdout for _, holdout in parts if holdout is not None]
        return joined([train for train, _ in parts]), joined(held) if held else None


class NpyArrays(PairSource):
    """The preprocessor of `.npy` files: one of features, and one of labels, if there are any."""

    @checked_settings
    def __init__(
        self,
        *,
        x: Name,
        y: Name | None = None,
        holdout: Share = HOLDOUT,
        holdout_x: Name | None = None,
        holdout_y: Name | None = None,
        follow: bool = False,
        transforms: Steps = (),
    ) -> None:
        super().__init__(
            ("x", "y"), (x, y), (holdout_x, holdout_y), transforms=transforms, holdout=holdout, follow=follow
        )

    def read_pair(self, first: Path, second: Path | None) -> Table:
        """As `PairSource.read_pair`."""
        x = _file(first)
        return _table(str(first), x, None if second is None else _file(second), "x", "y")


def read_npy(file: BinaryIO, size: int) -> Array:
    """The array in an open file of `size` bytes. Raises `DataError` before it allocates what is not there."""
    try:
        header = HEADERS.get(npy.read_magic(file))
        if header is None:
            raise DataError("a version of the format that is not read here")
        shape, _, dtype = header(file)
    except DataError:
        raise
    except Exception as exc:  # numpy raises many things over a damaged header, its tokenizer's too
        raise DataError(one_line(exc)) from exc
    if dtype.hasobject:
        raise DataError("it holds Python objects, which are not loaded: save it as numbers")
    promised = math.prod(shape) * dtype.itemsize
    if promised != size - file.tell() or min(shape, default=0) < 0:
        raise DataError(f"its header promises {promised} bytes, there are {size - file.tell()}")
    file.seek(0)
    array: Array = npy.read_array(file, allow_pickle=False)
    return array


def _file(path: Path) -> Array:
    """The array in a `.npy` file."""
    size = check_size(path)
    with reading(path), path.open("rb") as file:
        try:
            return read_npy(file, size)
        except DataError as exc:
            raise DataError(f"{path}: {exc}") from exc


def _read(path: Path) -> tuple[Table, Table | None]:
    """What a `.npz` file has to train on, and what is held out."""
    arrays = _arrays(path)
    held = "holdout_x" in arrays or "holdout_y" in arrays
    for name in ("x", "y", *(("holdout_x", "holdout_y") if held else ())):
        if name not in arrays:
            raise DataError(f"{path}: there is no array {name!r}")
    train = _table(str(path), arrays["x"], arrays["y"], "x", "y")
    if not held:
        return train, None
    return train, _table(str(path), arrays["holdout_x"], arrays["holdout_y"], "holdout_x", "holdout_y")


def _arrays(path: Path) -> dict[str, Array]:
    """All arrays of the file, at most `MAX_BYTES`."""
    try:
        with reading(path), zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            size = sum(entry.file_size for entry in entries)
            if size > MAX_BYTES:
                raise DataError(f"{path}: {size} bytes of arrays are over the limit of {MAX_BYTES}")
            arrays = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as file:
                    try:
                        arrays[name] = read_npy(cast("BinaryIO", file), entry.file_size)
                    except DataError as exc:
                        raise DataError(f"{path}: array {name!r}: {exc}") from exc
            return arrays
    except DataError:
        raise
    except Exception as exc:  # zipfile, zlib and numpy raise many things over a damaged file
        raise DataError(f"{path} is not a file of numpy arrays: {one_line(exc)}") from exc


def _table(source: str, x: Array, y: Array | None, first: str, second: str) -> Table:
    """Features and labels of one part, checked."""
    named = {first: (x, FEATURE_KINDS), **({} if y is None else {second: (y, LABEL_KINDS)})}
    for name, (array, kinds) in named.items():
        if array.dtype.kind not in kinds:
            raise DataError(f"{source}: array {name!r} holds {array.dtype.name}, which does not fit")
    if x.ndim < 1 or not len(x) or (y is not None and y.shape != (len(x),)):
        shape = None if y is None else y.shape
        raise DataError(
            f"{source}: {first} {x.shape} and {second} {shape} are not one label for each example"
        )
    features = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    labels = None if y is None else y.astype(np.int64)
    return make_table({first: features}, labels, source)
