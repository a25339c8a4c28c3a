"""FLTrust: an update is trusted as far as it points where training on a small root set points."""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import AggregationError, PluginError
from federated.parameters import Array, Parameters
from federated.plugin import checked_settings
from plugins.aggregation.blocks import Plan, Vector
from plugins.aggregation.gram import gram
from plugins.aggregation.points import Points, lower_median, product, total
from plugins.aggregation.root_training import RootSet, layers_of, root_delta
from plugins.aggregation.rule import Rule

MAX_ROOT = 1 << 26  # bytes of the arrays unpacked; a manifest has 128 KiB, so more would be a bomb


class FLTrust(Rule):
    """Each delta is brought to the length of the root set's own and weighs max(0, cosine with it).

    Withstands any number of liars as far as the root set is like the data of the honest. It is a part of
    the task, so that all members have the same, and each member trains on it with arithmetic that has the
    same bits everywhere; that knows the model of `numpy-mlp`, `torch-mlp` and `softmax`. A late update weighs
    less, example counts are not looked at. Source: Cao et al. 2021, "FLTrust: Byzantine-robust Federated
    Learning via Trust Bootstrapping", Algorithm 2.

    Not in the paper: a bound on the trust in one. Where data are unlike, an honest delta's cosine is 0.1 or
    0.2; a liar that has the root set too reaches any it wants, and would outweigh the honest ones by far.
    """

    @checked_settings
    def __init__(
        self,
        *,
        root: str,
        steps: Annotated[int, Field(ge=1, le=1000)] = 15,
        lr: Annotated[float, Field(gt=0, le=10)] = 0.1,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        clip: Annotated[float, Field(gt=0)] = 1.0,
        max_trust: Annotated[float, Field(ge=1)] | None = 1.0,
    ) -> None:
        """`root` is a file of numpy arrays (.npz) in base64: `x`, examples × inputs as the trainer gets
        them, and `y`. Nobody is trusted more than `max_trust` times the median of those that are trusted at
        all, the lower one of two; without it there is no such bound.

        The others are those of the trainers: how far the root set's delta goes is how far the model goes.
        """
        self.root = read_root(root)
        self.max_trust = max_trust
        self.steps, self.lr, self.momentum, self.clip = steps, lr, momentum, clip

    def init(self, parameters: Parameters) -> Parameters:
        """Nothing to keep. Raises `PluginError` for a model that it cannot train."""
        try:
            layers = layers_of(parameters)
        except ValueError as exc:
            raise PluginError(str(exc)) from exc
        inputs = parameters["layer0.weight"].shape[1]
        classes = len(parameters[f"layer{layers - 1}.bias"])
        if self.root.x.shape[1] != inputs or self.root.y.max() >= classes:
            raise PluginError(
                f"setting root: x has {self.root.x.shape[1]} columns and y goes to {self.root.y.max()}, "
                f"the model has {inputs} inputs and {classes} classes"
            )
        return {}

    def plan(self, points: Points) -> Plan:
        """The sum by trust. Raises `AggregationError` when no update is trusted."""
        try:
            trusted = root_delta(
                points.base, self.root, steps=self.steps, lr=self.lr, momentum=self.momentum, clip=self.clip
            )
        except OverflowError as exc:
            raise AggregationError(f"training on the root set runs away: lower lr ({exc})") from exc
        inner = gram([*points.deltas, trusted])
        along: Vector = product(points.mixture, inner[:-1, -1:])[:, 0]
        length = float(np.sqrt(inner[-1, -1]))
        apart = np.where(points.norms > 0, points.norms, 1.0)
        trust = self._bounded(np.maximum(along / apart, 0.0))  # the cosine, times `length`: it cancels out
        trust = trust * points.freshness
        whole = float(total(trust))
        if not whole > 0:
            raise AggregationError("no update points where the root set does: the round is skipped")
        return points.sum(trust / whole * (length / apart))

    def _bounded(self, trust: Vector) -> Vector:
        trusted = trust[trust > 0]
        if self.max_trust is None or not len(trusted):
            return trust
        bounded: Vector = np.minimum(trust, self.max_trust * lower_median(trusted))
        return bounded


def read_root(text: str) -> RootSet:
    """The root set in a setting. Raises `PluginError`; nothing in it is unpickled."""
    try:
        data = base64.b64decode(text, validate=True)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ROOT:
                raise PluginError(f"setting root: its arrays are over the limit of {MAX_ROOT} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except binascii.Error as exc:
        raise PluginError("setting root: not base64; make it with: base64 -w0 root.npz") from exc
    except PluginError:
        raise
    except Exception as exc:  # zipfile, zlib and numpy raise many things over a damaged file
        raise PluginError(
            f"setting root: not a file of the numpy arrays x and y: {type(exc).__name__}"
        ) from exc
    return RootSet(*_checked(x, y))


def _checked(x: Array, y: Array) -> tuple[Array, Array]:
    if (
        x.dtype.kind not in "fiub"
        or y.dtype.kind not in "iu"
        or x.ndim != 2
        or y.shape != (len(x),)
        or not len(x)
    ):
        raise PluginError(
            f"setting root: x {x.dtype.name}{list(x.shape)} and y {y.dtype.name}{list(y.shape)} "
            "are not one row and one class for each example"
        )
    values, classes = x.astype(np.float64), y.astype(np.int64)
    if not np.isfinite(values).all() or classes.min() < 0:
        raise PluginError("setting root: a value of x is not finite, or a class of y is negative")
    return values, classes
