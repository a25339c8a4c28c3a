"""torch's modules and optimisers as named arrays, and back.

What travels has the dtypes of `federated.codec`. torch has more: half precision goes as float32 and truth
values as uint8, which holds each of their values, and so comes back as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from federated.errors import PluginError
from federated.parameters import Array, Parameters

WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.bool: torch.uint8}


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's own tensors by their names in its `state_dict`, parameters and buffers.

    Parameters that are tied, one under several names, come once, under the first. Raises `PluginError`.
    """
    found: dict[str, torch.Tensor] = {}
    known: set[int] = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            raise PluginError(f"{name} in the state_dict is a {type(value).__name__}: only tensors travel")
        if id(value) not in known:
            known.add(id(value))
            found[name] = value
    return found


def to_array(tensor: torch.Tensor) -> Array:
    """A copy of the tensor's values."""
    wide = tensor.detach().to("cpu", WIDENED.get(tensor.dtype, tensor.dtype))
    array: Array = wide.numpy().copy()
    return array


def to_tensor(array: Array) -> torch.Tensor:
    """A copy of the array's values."""
    return torch.from_numpy(array.copy())


def fill(tensors: Mapping[str, torch.Tensor], arrays: Mapping[str, Array]) -> None:
    """Gives each tensor the values of the array of its name."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(to_tensor(arrays[name]))


def memory_of(optimiser: torch.optim.Optimizer, weights: Mapping[str, torch.Tensor]) -> Parameters:
    """What an optimiser keeps of each weight, as `<what>/<name of the weight>`. Raises `PluginError`."""
    kept: Parameters = {}
    for name, weight in weights.items():
        for key, value in optimiser.state.get(weight, {}).items():
            if isinstance(value, torch.Tensor):
                kept[f"{key}/{name}"] = to_array(value)
            elif value is not None:
                raise PluginError(
                    f"setting carry: {type(optimiser).__name__} keeps {key}, a {type(value).__name__}; "
                    "only tensors are carried"
                )
    return kept


def remember(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, torch.Tensor], kept: Mapping[str, Array]
) -> None:
    """The opposite of `memory_of`, for an optimiser that has made no step."""
    state = optimiser.state_dict()
    for name, number in _numbers(optimiser, weights):
        ending = f"/{name}"
        found = {key.removesuffix(ending): array for key, array in kept.items() if key.endswith(ending)}
        if moments := {key: to_tensor(array) for key, array in found.items() if "/" not in key}:
            state["state"][number] = moments
    optimiser.load_state_dict(state)


def _numbers(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, Any]]:
    """The name of each weight of the optimiser, and the number by which its state_dict knows it."""
    names = {id(weight): name for name, weight in weights.items()}
    groups = zip(optimiser.param_groups, optimiser.state_dict()["param_groups"], strict=True)
    for group, saved in groups:
        for weight, number in zip(group["params"], saved["params"], strict=True):
            yield names[id(weight)], number
