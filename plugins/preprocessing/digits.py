"""scikit-learn's digits, split among the members so that no two see the same mix of classes.

1797 images of 8x8 pixels; `plugins.preprocessing.dealing` says how they are split.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from federated.errors import DataError
from federated.plugin import Dataset, PeerContext, checked_settings
from plugins.preprocessing.dealing import deal

WHITE = 16.0  # the brightest pixel; scikit-learn's digits count 0 to 16
MAX_SEED = (1 << 53) - 1


class Digits:
    """The preprocessor; needs scikit-learn. One member alone gets the whole training set."""

    kind = "preprocessor"

    @checked_settings
    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0.01, le=1e6)] = 0.5,
        seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 7,
        holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    ) -> None:
        self.alpha = alpha
        self.seed = seed
        self.holdout = holdout

    def load(self, context: PeerContext) -> Dataset:
        """This peer's shard as (x, y), pixels within 0 and 1 in float32. Raises `DataError`."""
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as exc:
            raise DataError("the digits need the package 'scikit-learn', which is not installed") from exc
        images, digits = load_digits(return_X_y=True)
        return deal(images / WHITE, digits, context, alpha=self.alpha, seed=self.seed, holdout=self.holdout)
