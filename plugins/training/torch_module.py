"""A trainer for any torch module: its author gives the module, and what is not usual about it.

    class Pictures(TorchTrainer):
        def module(self):
            return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

All the module's tensors make the model, under their names in its `state_dict`: parameters, and buffers such
as the running statistics of a BatchNorm, which are averaged like parameters (integers are rounded). `local`
keeps those at home whose names begin so. The first values have the same bits on every machine, see
`plugins.training.torch_draws`. What training comes to is this machine's own: the same steps give the same
bits again on the same processor, so that a round can be repeated after a crash; on cuda torch does not
promise that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from federated.errors import DataError, PluginError
from federated.parameters import Array, Parameters, non_finite
from federated.plugin import TrainContext, checked_settings
from plugins.fairness import Q
from plugins.training.batches import Batch, Epochs, Indices, Steps, batches, seen
from plugins.training.gradient import GradientTrainer, Mu, Outcome, Prefixes, Start
from plugins.training.torch_arrays import fill, tensors_of, to_array
from plugins.training.torch_draws import Draws
from plugins.training.torch_steps import Descent

MAX_THREADS = 1024
LEAST = 2  # examples of a batch: BatchNorm cannot learn from one
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16", "fp16"]
Tensors = tuple[torch.Tensor, ...]


class TorchTrainer(GradientTrainer):
    """A subclass gives `module`; `forward`, `loss` and `optimiser` where they are not the usual ones.

    `data` is a tuple of arrays with one row for each example: what the module takes, and the target last.
    """

    @checked_settings
    def __init__(
        self,
        *,
        epochs: Epochs = 1,
        steps: Steps = None,
        batch: Batch = 32,
        lr: Annotated[float, Field(gt=0)] = 0.01,
        decay: Annotated[float, Field(gt=0, le=1)] = 1.0,
        clip: Annotated[float, Field(gt=0)] | None = None,
        carry: bool = False,
        device: Device = "auto",
        threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] = 1,
        precision: Precision = "float32",
        mu: Mu = 0.0,
        scaffold: bool = False,
        local: Prefixes = (),
        q: Q = 0.0,
    ) -> None:
        """Settings as those of `plugins.training.mlp`, and where and how exactly to compute.

        The device `auto` is cuda where there is one. On a processor torch takes `threads`: several peers may
        share a machine, and small layers gain nothing from more than one. With a `precision` other than
        float32 torch computes in it what it thinks safe; the parameters stay as they are.
        """
        super().__init__(carry=carry, mu=mu, scaffold=scaffold, local=local, q=q)
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise PluginError("setting device: this machine has no cuda; `auto` takes the processor then")
        self.device = torch.device("cuda" if cuda and device != "cpu" else "cpu")
        self.threads = threads
        self.precision = precision
        self.epochs = epochs
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.decay = decay
        self.clip = clip

    # what an author gives

    @abstractmethod
    def module(self) -> nn.Module:
        """A new module, as it begins."""

    def forward(self, module: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for a batch."""
        outputs: torch.Tensor = module(*inputs)
        return outputs

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch: cross-entropy of logits (examples, classes, …)."""
        return functional.cross_entropy(outputs, target)

    def optimiser(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """A new optimiser of the parameters that have gradients: SGD with momentum 0.9."""
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9)

    # what is made of it

    def first(self, seed: int) -> Parameters:
        """The values that `module` begins with, drawn anew with `seed`. Raises `PluginError`."""
        with Draws(seed):
            module = self.module()
        return {name: to_array(tensor) for name, tensor in tensors_of(module).items()}

    def learned(self, whole: Parameters) -> Collection[str]:
        """The parameters that have gradients."""
        return [name for name, tensor in tensors_of(self._made()).items() if tensor.requires_grad]

    def fit(self, start: Start, data: Any, context: TrainContext) -> Outcome:
        """The optimiser's steps over shuffled passes.

        Raises `TrainingStopped`, `DataError`, `PluginError`.
        """
        arrays = _checked(data)
        count = len(arrays[0])
        module = self._made(start.model).train()
        tensors = tensors_of(module)
        weights = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)}
        weights = {name: weight for name, weight in weights.items() if weight.requires_grad}
        optimiser = self.optimiser(list(weights.values()), self.rate(context))
        descent = Descent(optimiser, weights, start, clip=self.clip, scaled=self.precision == "fp16")
        torch.manual_seed(context.seed)  # for dropout
        for rows in batches(count, self.batch, context, epochs=self.epochs, steps=self.steps, least=LEAST):
            descent.step(self._outputs_and_loss(module, self._batch(arrays, rows))[1])
        model = {name: to_array(tensor) for name, tensor in tensors.items()}
        if (name := non_finite(model)) is not None:
            raise PluginError(f"{name} is not finite after the training: set clip, or lower lr")
        return Outcome(
            model=model,
            memory=descent.memory if self.carry else {},
            gradient=descent.gradient,
            examples=seen(count, self.batch, context, self.steps),
        )

    def measure(self, model: Parameters, data: Any) -> dict[str, float]:
        """The mean `loss` on `data`, and the `accuracy` where the target is a class. Raises `DataError`."""
        arrays = _checked(data)
        count = len(arrays[0])
        module = self._made(model).eval()
        loss, right, answers = 0.0, 0, 0
        with torch.no_grad():
            for rows in _parts(count, self.batch):
                *inputs, target = self._batch(arrays, rows)
                outputs, mean = self._outputs_and_loss(module, (*inputs, target))
                loss += mean.item() * len(rows)
                if not target.is_floating_point() and outputs.ndim == target.ndim + 1:
                    right += int((outputs.argmax(1) == target).sum())
                    answers += target.numel()
        return {"loss": loss / count} | ({"accuracy": right / answers} if answers else {})

    def _made(self, model: Parameters | None = None) -> nn.Module:
        """The module, with the values of `model` where there is one."""
        torch.set_num_threads(self.threads)
        with Draws(0):  # so that nobody else's draws are disturbed
            module = self.module()
        if model is not None:
            fill(tensors_of(module), model)
        return module.to(self.device)

    def _batch(self, arrays: Sequence[Array], rows: Indices) -> Tensors:
        """Some rows, where the module is: floats as float32 and integers as int64, as modules want them."""
        kinds = {"f": torch.float32, "i": torch.int64, "u": torch.int64, "b": torch.bool}
        return tuple(
            torch.from_numpy(array[rows]).to(self.device, kinds[array.dtype.kind]) for array in arrays
        )

    def _outputs_and_loss(self, module: nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        *inputs, target = batch
        with torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "float32"):
            outputs = self.forward(module, *inputs)
            return outputs, self.loss(outputs, target)


def _parts(count: int, size: int) -> Iterator[Indices]:
    """All rows in their order, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _checked(data: Any) -> list[Array]:
    """`data` as arrays of numbers, all of one length."""
    arrays = [np.asarray(part) for part in data]
    shapes = ", ".join(f"{array.dtype.name}{list(array.shape)}" for array in arrays)
    if len(arrays) < 2 or any(array.dtype.kind not in "fiub" or not array.ndim for array in arrays):
        raise DataError(f"{shapes or 'nothing'}: not inputs and a target, arrays with a row for each example")
    if len({len(array) for array in arrays}) > 1 or not len(arrays[0]):
        raise DataError(f"{shapes}: not one row for each example")
    return arrays
