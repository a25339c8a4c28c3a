"""The transforms of a preprocessor, one after the other, as a manifest lists them.

    "transforms": [{"name": "impute", "strategy": "median"}, {"name": "standardise"}]

Each is fitted to the part that is trained on, and then changes both parts. What must be equal at all peers
(the width of what comes out, categories, vocabularies) stands in the manifest; what is fitted stays here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import JsonValue

from federated.errors import PluginError
from federated.plugin import PeerContext
from plugins.preprocessing.table import Table
from plugins.preprocessing.transforms import TRANSFORMS, Transform


class Transforms:
    """The transforms, made with their settings."""

    def __init__(self, steps: Sequence[dict[str, JsonValue]] = ()) -> None:
        """Raises `PluginError` with a line that names the step that is wrong."""
        self._steps = [_made(number, step) for number, step in enumerate(steps)]

    @property
    def text(self) -> frozenset[str]:
        """The columns that a source must read as text."""
        return frozenset(name for step in self._steps for name in step.text)

    def run(self, train: Table, holdout: Table | None, context: PeerContext) -> tuple[Table, Table | None]:
        """Both parts, transformed. Raises `DataError`."""
        for step in self._steps:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is no feature
                train, holdout = step.run(train, holdout, context)
            if holdout is not None and not len(holdout):
                holdout = None  # it was shorter than one window
        return train, holdout


def _made(number: int, step: dict[str, JsonValue]) -> Transform:
    settings = dict(step)
    name = settings.pop("name", None)
    where = f"setting transforms[{number}]"
    factory = TRANSFORMS.get(name) if isinstance(name, str) else None
    if factory is None:
        raise PluginError(f"{where}: there is no transform {name!r:.40}; there are: {', '.join(TRANSFORMS)}")
    try:
        return factory(**settings)
    except PluginError as exc:
        raise PluginError(f"{where}, {name}: {exc}") from exc
