"""The MLP trainer on torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

from federated.parameters import Parameters
from plugins.training.batches import Indices
from plugins.training.gradient import Start
from plugins.training.mlp import MLP, Features, Fitted, Labels
from plugins.training.torch_arrays import to_array, to_tensor
from plugins.training.torch_steps import Descent


class TorchMLP(MLP):
    """SGD with momentum or AdamW on softmax cross-entropy, one thread, on the processor."""

    def _fit(self, start: Start, x: Features, y: Labels, rows: Iterator[Indices], lr: float) -> Fitted:
        torch.set_num_threads(1)  # several peers share a machine, and small layers gain nothing from more
        weights = {name: to_tensor(array).requires_grad_() for name, array in start.model.items()}
        descent = Descent(self._optimiser(weights, lr), weights, start, clip=self.clip)
        features, labels = torch.from_numpy(x), torch.from_numpy(y)
        for chosen in map(torch.from_numpy, rows):
            descent.step(functional.cross_entropy(self._forward(weights, features[chosen]), labels[chosen]))
        new = {name: to_array(weight) for name, weight in weights.items()}
        return new, descent.memory if self.carry else {}, descent.gradient

    def _optimiser(self, weights: dict[str, torch.Tensor], lr: float) -> torch.optim.Optimizer:
        if self.optimiser == "sgd":
            return torch.optim.SGD(list(weights.values()), lr=lr, momentum=self.momentum)
        return torch.optim.AdamW(list(weights.values()), lr=lr)

    def _predict(self, parameters: Parameters, x: Features) -> Features:
        torch.set_num_threads(1)
        with torch.no_grad():
            weights = {name: to_tensor(array) for name, array in parameters.items()}
            predicted: Features = self._forward(weights, torch.from_numpy(x)).numpy()
        return predicted

    def _forward(self, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            x = functional.linear(x, weights[f"layer{layer}.weight"], weights[f"layer{layer}.bias"])
            x = x if layer == last else functional.relu(x)
        return x
