"""AdamW in numpy against the algorithm as it is written, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plugins.training.optimisers import SGD, AdamW


def test_adamw_by_hand() -> None:
    at, mean, square = 1.0, 0.0, 0.0
    weight = np.array([1.0], np.float32)
    optimiser = AdamW({"w": weight}, {}, 0.1)
    for step, gradient in enumerate([0.5, -2.0, 0.25, 0.0, 1.0], 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        at -= 0.1 * 0.01 * at
        at -= 0.1 * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.999**step)) + 1e-8)
        optimiser.move("w", weight, np.array([gradient], np.float32))
        assert weight[0] == pytest.approx(at, rel=1e-5)
    memory = optimiser.memory
    assert memory["exp_avg/w"] == pytest.approx(mean, rel=1e-5)
    assert memory["exp_avg_sq/w"] == pytest.approx(square, rel=1e-5)
    assert memory["step/w"] == 5


@pytest.mark.parametrize("carried", [True, False])
def test_what_is_kept_goes_on_and_is_left_alone(carried: bool) -> None:
    for make in (AdamW, lambda *begin: SGD(*begin, 0.9)):
        whole, parts = np.ones(3, np.float32), np.ones(3, np.float32)
        ramp = np.arange(3, dtype=np.float32)
        one, first = make({"w": whole}, {}, 0.1), make({"w": parts}, {}, 0.1)
        for gradient in (ramp, ramp[::-1]):
            one.move("w", whole, gradient.copy())
        first.move("w", parts, ramp.copy())
        memory = {name: array.copy() for name, array in first.memory.items()}
        second = make({"w": parts}, first.memory if carried else {}, 0.1)
        second.move("w", parts, ramp[::-1].copy())
        assert (whole == parts).all() == carried
        assert all((first.memory[name] == array).all() for name, array in memory.items())
