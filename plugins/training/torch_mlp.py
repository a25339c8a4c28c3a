"""The MLP trainer on torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

from federated.parameters import Parameters
from plugins.training.mlp import MLP, Features, Indices, Labels


class TorchMLP(MLP):
    """Momentum SGD on softmax cross-entropy, one thread, on the processor."""

    def _fit(
        self, parameters: Parameters, x: Features, y: Labels, batches: Iterator[Indices], lr: float
    ) -> Parameters:
        torch.set_num_threads(1)  # several peers share a machine, and small layers gain nothing from more
        weights = {name: torch.tensor(array, requires_grad=True) for name, array in parameters.items()}
        optimiser = torch.optim.SGD(list(weights.values()), lr=lr, momentum=self.momentum)
        features, labels = torch.from_numpy(x), torch.from_numpy(y)
        for rows in batches:
            chosen = torch.from_numpy(rows)
            optimiser.zero_grad()
            loss = functional.cross_entropy(self._forward(weights, features[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(weights.values(), self.clip)
            optimiser.step()
        return {name: weight.detach().numpy() for name, weight in weights.items()}

    def _predict(self, parameters: Parameters, x: Features) -> Features:
        torch.set_num_threads(1)
        with torch.no_grad():
            weights = {name: torch.from_numpy(array) for name, array in parameters.items()}
            predicted: Features = self._forward(weights, torch.from_numpy(x)).numpy()
        return predicted

    def _forward(self, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            x = functional.linear(x, weights[f"layer{layer}.weight"], weights[f"layer{layer}.bias"])
            x = x if layer == last else functional.relu(x)
        return x
