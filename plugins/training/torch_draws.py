"""The first values of a torch module, the same bits on every machine.

torch draws from one generator for the whole process, and its normal distribution has another version for
each kind of processor. So inside of `Draws` whatever a module draws comes from numpy's PCG64, in the order
in which it is asked for: uniform values are the same bits everywhere and with every version of torch,
normal ones up to the last bit of a float64, before they are rounded to float32. Whatever else is random is
refused. What a module computes from the draws is its own affair: elementwise arithmetic is the same
everywhere, while `nn.init.orthogonal_` decomposes a matrix and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode  # the documented way to see every operation

from federated.errors import PluginError


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """A context in which modules are made; it sees the operations of its own thread alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The operation, with numpy's numbers where it wants random ones. Raises `PluginError`."""
        named = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **named)
        match func.overloadpacket.__name__:
            case "uniform_":
                return self._fill(*args, draw=self._uniform, **named)
            case "normal_":
                return self._fill(*args, draw=self._normal, **named)
            case "rand":
                return self._fill(torch.empty(*args, **named), draw=self._uniform)
            case "randn":
                return self._fill(torch.empty(*args, **named), draw=self._normal)
        raise PluginError(
            f"module() draws with {func}, which is not the same on every machine: "
            "draw uniform or normal values, or take them from numpy"
        )

    def _fill(
        self,
        tensor: torch.Tensor,
        *bounds: float,
        draw: Callable[..., NDArray[np.float64]],
        generator: object = None,
    ) -> torch.Tensor:
        """`tensor` with drawn values; a generator of torch's would have other ones, and is not asked."""
        values = torch.from_numpy(draw(tuple(tensor.shape), *bounds))
        return tensor.copy_(values)

    def _uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        return low + (high - low) * np.asarray(self._generator.random(shape))

    def _normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0) -> NDArray[np.float64]:
        return mean + std * np.asarray(self._generator.standard_normal(shape))
