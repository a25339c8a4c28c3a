"""A trainer for scikit-learn estimators with `partial_fit`: its author gives the estimator.

    class Spam(SklearnTrainer):
        def estimator(self):
            return Perceptron(penalty="l2")

The model is the attributes that the class names, and averaging them must make sense. It does for linear
models (`SGDClassifier`, `SGDRegressor`, `Perceptron`), and for `MLPClassifier` and `MLPRegressor` with
`attributes = ("coefs_", "intercepts_")` and first values of one's own; the moments of their Adam begin anew
in each round. It does not for cluster centres, whose order differs from member to member, nor for
`GaussianNB`, whose means weigh by the examples of each class; `moments` shows how to share statistics
exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from sklearn.base import is_classifier
from sklearn.metrics import log_loss

from federated.errors import DataError, PluginError
from federated.parameters import Array, Parameters
from federated.plugin import TrainContext, TrainResult, checked_settings
from plugins.training.batches import Batch, Epochs, Steps, batches, seen

MAX_INPUTS = 1 << 20  # features
MAX_CLASSES = 1 << 16

Inputs = Annotated[int, Field(ge=1, le=MAX_INPUTS)]
Classes = Annotated[int, Field(ge=0, le=MAX_CLASSES)]


class SklearnTrainer(ABC):
    """A subclass gives `estimator`, and names its parameters where they are not those of a linear model.

    `data` is a pair (x, y): numbers of shape (n, inputs), and n integer labels below `classes`, or n numbers
    for an estimator that is no classifier.
    """

    kind = "trainer"

    attributes: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")
    """What travels: attributes that are an array or a list of arrays."""

    counters: ClassVar[Mapping[str, float]] = {"t_": 1.0}
    """Numbers that a member keeps from round to round, with their first values: learning rates follow t_."""

    @checked_settings
    def __init__(
        self,
        *,
        inputs: Inputs,
        classes: Classes = 0,
        epochs: Epochs = 1,
        steps: Steps = None,
        batch: Batch = 32,
    ) -> None:
        """`classes` is 0 for an estimator that is no classifier. Raises `PluginError`."""
        self.inputs = inputs
        self.classes = classes
        self.epochs = epochs
        self.steps = steps
        self.batch = batch

    @abstractmethod
    def estimator(self) -> Any:
        """A new estimator."""

    def first(self, shapes: Parameters, generator: np.random.Generator) -> Parameters:
        """The first values of the arrays: zeros, as linear models begin."""
        return {name: np.zeros_like(array) for name, array in shapes.items()}

    def init(self, seed: int) -> Parameters:
        """The first parameters. Raises `PluginError` for an estimator that cannot be trained so."""
        generator = np.random.Generator(np.random.PCG64(seed))
        return self.first(_arrays(self._made(seed), self.attributes), generator)

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """`partial_fit` with each batch of shuffled passes. Raises `TrainingStopped`, `DataError`."""
        x, y = self._checked(data)
        estimator = self._placed(parameters, context.state, context.seed)
        for rows in batches(len(x), self.batch, context, epochs=self.epochs, steps=self.steps):
            estimator.partial_fit(x[rows], y[rows])
        return TrainResult(
            parameters=_arrays(estimator, self.attributes),
            examples=seen(len(x), self.batch, context, self.steps),
            state={name: np.array(getattr(estimator, name), np.float64) for name in self._counted(estimator)},
        )

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """`accuracy`, and the mean cross-entropy `loss` of a classifier that knows probabilities; the mean
        square error as `loss` of one that is no classifier. Raises `DataError`.
        """
        x, y = self._checked(data)
        estimator = self._placed(parameters, {}, 0)
        if not self.classes:
            return {"loss": float(np.mean((estimator.predict(x) - y) ** 2))}
        measured = {"accuracy": float(np.mean(estimator.predict(x) == y))}
        if hasattr(estimator, "predict_proba"):
            measured["loss"] = float(log_loss(y, estimator.predict_proba(x), labels=range(self.classes)))
        return measured

    def _made(self, seed: int) -> Any:
        """An estimator whose arrays have their shapes: it has seen one example of each class, of zeros."""
        estimator = self.estimator()
        if is_classifier(estimator) != bool(self.classes) or self.classes == 1:
            raise PluginError(
                f"setting classes: {type(estimator).__name__} "
                + ("tells two classes or more apart" if is_classifier(estimator) else "has no classes: 0")
            )
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=seed % (1 << 32))  # numpy's old generators take so much
        count = max(1, self.classes)
        named = {"classes": np.arange(count)} if self.classes else {}
        target = np.arange(count) if self.classes else np.zeros(count)
        estimator.partial_fit(np.zeros((count, self.inputs), np.float32), target, **named)
        return estimator

    def _placed(self, parameters: Parameters, state: Parameters, seed: int) -> Any:
        """An estimator with these parameters, and its counters as they were kept."""
        estimator = self._made(seed)
        for name, array in _arrays(estimator, self.attributes, copy=False).items():
            array[...] = parameters[name]
        for name in self._counted(estimator):
            kind = type(getattr(estimator, name))
            setattr(estimator, name, kind(state.get(name, self.counters[name])))
        return estimator

    def _counted(self, estimator: Any) -> list[str]:
        return [name for name in self.counters if hasattr(estimator, name)]

    def _checked(self, data: Any) -> tuple[Array, Array]:
        """`data` as the arrays this model takes."""
        x, y = (np.asarray(part) for part in data)
        if x.ndim != 2 or x.shape[1] != self.inputs or y.shape != (len(x),) or not len(x):
            raise DataError(f"x {x.shape} and y {y.shape} do not fit a model of {self.inputs} inputs")
        if self.classes and (y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= self.classes):
            raise DataError(f"labels must be integers from 0 to {self.classes - 1}")
        return x.astype(np.float32, copy=False), y


def _arrays(estimator: Any, attributes: tuple[str, ...], *, copy: bool = True) -> Parameters:
    """The estimator's arrays by name, those of a list with their number. Raises `PluginError`."""
    found: Parameters = {}
    for name, value in _values(estimator, attributes):
        if not isinstance(value, np.ndarray):
            raise PluginError(f"{type(estimator).__name__}.{name} is a {type(value).__name__}, not an array")
        found[name] = value.copy() if copy else value
    return found


def _values(estimator: Any, attributes: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in attributes:
        value = getattr(estimator, name, None)
        if isinstance(value, list):
            yield from ((f"{name}.{number}", part) for number, part in enumerate(value))
        else:
            yield name, value
