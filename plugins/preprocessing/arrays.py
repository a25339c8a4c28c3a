"""A peer's own data from a file of numpy arrays: `train.npz` in its data folder.

`x` and `y` are trained on, `holdout_x` and `holdout_y` measured on when they are there. The file never
leaves the machine. It may come from anywhere, so its sizes are checked before it is unpacked, and
nothing in it is unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from federated.errors import DataError
from federated.parameters import Array
from federated.plugin import Dataset, PeerContext

FILE = "train.npz"
MAX_BYTES = 1 << 32  # bytes of all arrays unpacked; a peer holds its data in memory
FEATURE_KINDS = "fiub"  # numpy's letters: float, integer, unsigned, boolean
LABEL_KINDS = "iub"


class NpzArrays:
    """The preprocessor; x becomes float32 of any shape, one row an example, and y int64."""

    kind = "preprocessor"

    def load(self, context: PeerContext) -> Dataset:
        """The arrays of this peer. Raises `DataError` with what is wrong with the file."""
        if context.data_dir is None:
            raise DataError(f"{FILE} is looked for in the data folder: give one with --data-dir")
        path = context.data_dir / FILE
        arrays = _read(path)
        try:
            x, y = _pair(arrays, "x", "y")
            held = "holdout_x" in arrays or "holdout_y" in arrays
            holdout = _pair(arrays, "holdout_x", "holdout_y") if held else None
        except DataError as exc:
            raise DataError(f"{path}: {exc}") from exc
        return Dataset(train=(x, y), holdout=holdout, examples=len(x))


def _read(path: Path) -> dict[str, Array]:
    """All arrays of the file, at most `MAX_BYTES`."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes of arrays are over the limit of {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DataError:
        raise
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except Exception as exc:  # zipfile, zlib and numpy raise many things over a damaged file
        line = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise DataError(f"{path} is not a file of numpy arrays: {line}") from exc


def _pair(arrays: dict[str, Array], first: str, second: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features and labels of one part, checked."""
    for name, kinds in ((first, FEATURE_KINDS), (second, LABEL_KINDS)):
        if name not in arrays:
            raise DataError(f"there is no array {name!r}")
        if arrays[name].dtype.kind not in kinds:
            raise DataError(f"array {name!r} holds {arrays[name].dtype.name}, which does not fit")
    x, y = arrays[first], arrays[second]
    if x.ndim < 1 or y.shape != (len(x),) or not len(x):
        raise DataError(f"{first} {x.shape} and {second} {y.shape} are not one label for each example")
    with np.errstate(over="ignore"):
        features = x.astype(np.float32)
    if not np.isfinite(features).all():
        raise DataError(f"array {first!r} holds values that are not finite")
    return features, y.astype(np.int64)
