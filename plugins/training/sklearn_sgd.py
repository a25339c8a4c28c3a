"""scikit-learn's linear classifier by stochastic gradient descent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from sklearn.linear_model import SGDClassifier

from federated.plugin import checked_settings
from plugins.training.batches import Batch, Epochs, Steps
from plugins.training.sklearn_model import MAX_CLASSES, Inputs, SklearnTrainer


class SklearnSGD(SklearnTrainer):
    """`SGDClassifier`: one linear model for each class against all others."""

    @checked_settings
    def __init__(
        self,
        *,
        inputs: Inputs = 64,
        classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] = 10,
        epochs: Epochs = 1,
        steps: Steps = None,
        batch: Batch = 32,
        loss: Literal["log_loss", "hinge", "modified_huber", "squared_hinge", "perceptron"] = "log_loss",
        penalty: Literal["l2", "l1", "elasticnet"] = "l2",
        alpha: Annotated[float, Field(gt=0)] = 0.0001,
        schedule: Literal["constant", "optimal", "invscaling"] = "constant",
        lr: Annotated[float, Field(gt=0)] = 0.01,
    ) -> None:
        """`loss`, `penalty` and `alpha` as in scikit-learn, where `schedule` is `learning_rate`, and `lr` the
        rate `eta0` that it begins with; `optimal` chooses its own.
        """
        super().__init__(inputs=inputs, classes=classes, epochs=epochs, steps=steps, batch=batch)
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.schedule = schedule
        self.lr = lr

    def estimator(self) -> Any:
        """A new `SGDClassifier`."""
        return SGDClassifier(
            loss=self.loss,
            penalty=self.penalty,
            alpha=self.alpha,
            learning_rate=self.schedule,
            eta0=self.lr,
        )
