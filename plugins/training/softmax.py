"""Multinomial logistic regression: one dense layer and softmax cross-entropy, the smallest useful model."""

from __future__ import annotations

import numpy as np

from federated.parameters import Parameters
from federated.plugin import checked_settings
from plugins.fairness import Q
from plugins.training.batches import Batch, Epochs, Steps
from plugins.training.gradient import Mu, Prefixes
from plugins.training.mlp import Clip, Decay, Momentum, Rate, Units
from plugins.training.numpy_mlp import NumpyMLP
from plugins.training.optimisers import Name


class Softmax(NumpyMLP):
    """An MLP without hidden layers, which begins at zero: its loss has one lowest point.

    Its tensors are `layer0.weight` (classes, inputs) and `layer0.bias`, as those of an MLP.
    """

    @checked_settings
    def __init__(
        self,
        *,
        inputs: Units = 64,
        classes: Units = 10,
        epochs: Epochs = 5,
        steps: Steps = None,
        batch: Batch = 32,
        lr: Rate = 0.1,
        optimiser: Name = "sgd",
        momentum: Momentum = 0.9,
        decay: Decay = 1.0,
        clip: Clip = 1.0,
        carry: bool = False,
        mu: Mu = 0.0,
        scaffold: bool = False,
        local: Prefixes = (),
        q: Q = 0.0,
    ) -> None:
        """As `MLP`."""
        super().__init__(
            inputs=inputs,
            classes=classes,
            hidden=(),
            epochs=epochs,
            steps=steps,
            batch=batch,
            lr=lr,
            optimiser=optimiser,
            momentum=momentum,
            decay=decay,
            clip=clip,
            carry=carry,
            mu=mu,
            scaffold=scaffold,
            local=local,
            q=q,
        )

    def first(self, seed: int) -> Parameters:
        """Zeros, whatever the seed."""
        return {name: np.zeros_like(array) for name, array in super().first(seed).items()}
