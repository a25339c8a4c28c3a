"""The task by which frameworks are compared, as a plugin and as a plain loop.

Every client has a shard of scikit-learn's digits, dealt out by class from a Dirichlet distribution of 0.5.
It makes one pass of SGD over it, 0.05 with momentum 0.9 in batches of 32, through 64-128-64-10. `PlainLoop`
and the plugin `Digits` make their steps by the same function: what a round of ours takes beyond one of the
loop is the price of everything else. Needs torch and scikit-learn.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from federated.parameters import Parameters
from federated.plugin import Dataset, PeerContext, TrainContext, TrainResult
from plugins.preprocessing.dealing import partition

ALPHA, HOLDOUT, SEED = 0.5, 0.2, 7
BATCH, RATE, MOMENTUM = 32, 0.05, 0.9
WIDTHS = (64, 128, 64, 10)

Rows = tuple[torch.Tensor, torch.Tensor]


def network() -> nn.Sequential:
    """A new one, with weights of torch's own drawing."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def arrays_of(module: nn.Module) -> Parameters:
    """A copy of its weights."""
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def filled(parameters: Parameters) -> nn.Sequential:
    """A network with these weights."""
    module = network()
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in parameters.items()})
    return module


def one_pass(parameters: Parameters, rows: Rows, seed: int) -> Parameters:
    """The weights after one pass over the rows of a client."""
    module = filled(parameters).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM)
    order = torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(seed))
    for batch in order.split(BATCH):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(rows[0][batch]), rows[1][batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return arrays_of(module)


@functools.cache
def examples() -> tuple[Rows, Rows]:
    """What is trained on by all clients together, and what is held out."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    cut = int((1 - HOLDOUT) * len(images))
    x, y = torch.from_numpy((images[order] / 16).astype(np.float32)), torch.from_numpy(digits[order])
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


@functools.cache
def shards(clients: int) -> Sequence[Rows]:
    """The rows of each client."""
    (x, y), _ = examples()
    rows: Sequence[NDArray[np.intp]] = partition(y.numpy(), clients, ALPHA, SEED)
    return [(x[mine], y[mine]) for mine in map(torch.from_numpy, rows)]


class Digits:
    """The plugin: data and model."""

    kind = "task"

    def load(self, context: PeerContext) -> Dataset:
        """The shard of this peer."""
        torch.set_num_threads(1)
        mine = shards(len(context.members))[context.index]
        return Dataset(train=mine, holdout=examples()[1], examples=len(mine[0]))

    def init(self, seed: int) -> Parameters:
        """Weights as torch draws them."""
        torch.manual_seed(seed)
        return arrays_of(network())

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """One pass."""
        return TrainResult(parameters=one_pass(parameters, data, context.seed), examples=len(data[0]))

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """The share of right answers, and the mean loss."""
        with torch.no_grad():
            outputs = filled(parameters).eval()(data[0])
            right = (outputs.argmax(1) == data[1]).float().mean().item()
            return {"accuracy": right, "loss": nn.functional.cross_entropy(outputs, data[1]).item()}


class PlainLoop:
    """The same task for so many clients, as one would write it down: train each, take the mean."""

    def __init__(self, clients: int, seed: int) -> None:
        torch.set_num_threads(1)
        self.parameters = Digits().init(seed)
        self._shards = shards(clients)
        self._round = 0

    def step(self) -> None:
        """One round: a pass at each client, and the mean by their examples."""
        self._round += 1
        total = sum(len(rows[0]) for rows in self._shards)
        mean = {name: np.zeros_like(array) for name, array in self.parameters.items()}
        for index, rows in enumerate(self._shards):
            learned = one_pass(self.parameters, rows, seed=100_003 * self._round + index)
            for name, array in learned.items():
                mean[name] += array * np.float32(len(rows[0]) / total)
        self.parameters = mean

    def accuracy(self) -> float:
        """On what is held out."""
        return Digits().evaluate(self.parameters, examples()[1])["accuracy"]
