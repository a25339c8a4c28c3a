"""The steps of a torch optimiser: clipped, corrected as the settings say, in mixed precision or not."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import torch

from federated.parameters import Parameters
from plugins.training.gradient import Start
from plugins.training.torch_arrays import memory_of, remember, to_array, to_tensor

SCALE = "gradient-scale"  # what fp16's losses are multiplied by, in the memory
GROWTH = "gradient-growth"  # steps since it grew


class Descent:
    """An optimiser at work on named weights, which are as `start` says."""

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        weights: Mapping[str, torch.Tensor],
        start: Start,
        *,
        clip: float | None,
        scaled: bool = False,
    ) -> None:
        """With `scaled`, losses are multiplied so that the gradients of fp16 do not vanish."""
        self._optimiser = optimiser
        self._weights = weights
        self._clip = inf if clip is None else clip
        first = next(iter(weights.values()))
        self._mu = start.mu
        held = [name for name in weights if name in start.shared] if start.mu else []
        self._anchors = {name: weights[name].detach().clone() for name in held}
        self._correction = {
            name: to_tensor(array).to(first.device) for name, array in start.correction.items()
        }
        self._sums = {name: torch.zeros_like(weights[name]) for name in start.correction}
        self._steps = 0
        self._scaler = torch.amp.GradScaler(first.device.type, enabled=scaled)
        remember(optimiser, weights, start.memory)
        if scaled and SCALE in start.memory:
            state = self._scaler.state_dict()
            state |= {"scale": start.memory[SCALE].item(), "_growth_tracker": start.memory[GROWTH].item()}
            self._scaler.load_state_dict(state)

    def step(self, loss: torch.Tensor) -> None:
        """One step along the gradient of `loss`, which is clipped; what is added to it is not."""
        self._optimiser.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._scaler.unscale_(self._optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), self._clip)
        if self._correction and bool(torch.isfinite(norm)):  # the scaler leaves out a step that is not
            self._steps += 1
            self._correct()
        self._hold()
        self._scaler.step(self._optimiser)
        self._scaler.update()

    def _correct(self) -> None:
        """SCAFFOLD's correction, and the mean that it will be made of."""
        for name, correction in self._correction.items():
            gradient = self._weights[name].grad
            if gradient is None:  # this step did not use the weight: its gradient is 0
                gradient = self._weights[name].grad = torch.zeros_like(correction)
            self._sums[name] += gradient
            gradient += correction

    def _hold(self) -> None:
        """FedProx's gradient: back to where the round began."""
        with torch.no_grad():
            for name, anchor in self._anchors.items():
                weight = self._weights[name]
                if weight.grad is not None:
                    weight.grad += self._mu * (weight - anchor)

    @property
    def gradient(self) -> Parameters:
        """The mean of the gradients; empty without a correction, or a step."""
        sums = self._sums if self._steps else {}
        return {name: to_array(total / self._steps) for name, total in sums.items()}

    @property
    def memory(self) -> Parameters:
        """What the optimiser and the scaler keep."""
        kept = memory_of(self._optimiser, self._weights)
        if self._scaler.is_enabled():
            state = self._scaler.state_dict()
            kept[SCALE] = to_array(torch.tensor(state["scale"], dtype=torch.float64))
            kept[GROWTH] = to_array(torch.tensor(state["_growth_tracker"]))
        return kept
