"""Made-up examples, as many as a task needs: where the digits are too few for so many members.

scikit-learn's `make_classification`: a cluster around a corner of a hypercube for each class, each with
correlations of its own. Source: Guyon 2003, "Design of experiments for the NIPS 2003 variable selection
benchmark". `plugins.preprocessing.dealing` says how they are split.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from federated.errors import DataError
from federated.plugin import Dataset, PeerContext, checked_settings
from plugins.preprocessing.dealing import deal

INPUTS, CLASSES = 64, 10  # as the digits have them, so that one model fits both
TELLING = 32  # inputs that say something about the class; the others are noise
APART = 2.0  # half the edge of the hypercube, in standard deviations of a cluster: an MLP gets to 97 %
MAX_EXAMPLES = 100_000  # 50 MB as they are made
MAX_SEED = (1 << 32) - 1  # of scikit-learn's generator


class Generated:
    """The preprocessor; needs scikit-learn. One member alone gets the whole training set."""

    kind = "preprocessor"

    @checked_settings
    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0.01, le=1e6)] = 0.5,
        seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 7,
        holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        examples: Annotated[int, Field(ge=100, le=MAX_EXAMPLES)] = 4000,
    ) -> None:
        self.alpha = alpha
        self.seed = seed
        self.holdout = holdout
        self.examples = examples

    def load(self, context: PeerContext) -> Dataset:
        """This peer's shard as (x, y), float32, each input of unit variance. Raises `DataError`."""
        try:
            from sklearn.datasets import make_classification
        except ModuleNotFoundError as exc:
            raise DataError("they need the package 'scikit-learn', which is not installed") from exc
        x, y = make_classification(
            n_samples=self.examples,
            n_features=INPUTS,
            n_informative=TELLING,
            n_redundant=0,
            n_classes=CLASSES,
            n_clusters_per_class=1,
            class_sep=APART,
            flip_y=0.0,
            random_state=self.seed,
        )
        return deal(x / x.std(axis=0), y, context, alpha=self.alpha, seed=self.seed, holdout=self.holdout)
