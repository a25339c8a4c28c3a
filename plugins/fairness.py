"""q-FedAvg: members whose loss is high count more, so that the model is more evenly good.

Of the loss F of the model at a member, its delta d and its learning rate, the paper makes two terms, here
both divided by L = 1 / rate, which leaves their ratio:

    Δ = F^q · d                     travels in the place of the delta
    h = F^q + q · F^(q-1) · ‖d‖² / rate     travels beside it, as the array `CURVATURE`

and the step of the model is ΣΔ / Σh (`plugins.aggregation.q_fedavg`). With q = 0 that is the plain mean.
`CURVATURE` is a part of the model, since an update has its arrays; there it counts the steps.
Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import PluginError
from federated.parameters import Parameters, cast

CURVATURE = "fair/h"
MIN_LOSS = 1e-10  # below it F^(q-1) means nothing

Q = Annotated[float, Field(ge=0, le=10)]


def first() -> Parameters:
    """What the model has besides."""
    return {CURVATURE: np.zeros((), np.float32)}


def terms(base: Parameters, new: Parameters, loss: float, *, q: float, rate: float) -> Parameters:
    """What to send instead of `new`, which came of `base` with `CURVATURE` by training at `rate`.

    `loss` is that of `base` on the member's data. Raises `PluginError` when it is no positive number, or too
    large.
    """
    if not math.isfinite(loss) or loss < 0:
        raise PluginError(f"setting q: the loss of the model on the data here is {loss}")
    loss = max(loss, MIN_LOSS)
    flat = {name: array.astype(np.float64) for name, array in new.items()}
    deltas = {name: array - base[name] for name, array in flat.items()}
    square = sum(float(np.vdot(delta, delta)) for delta in deltas.values())
    curvature = loss**q + q * loss ** (q - 1) * square / rate
    sent = {
        name: cast(name, base[name] + loss**q * delta, base[name].dtype) for name, delta in deltas.items()
    }
    return sent | {CURVATURE: cast(CURVATURE, base[CURVATURE] + np.float64(curvature), np.dtype(np.float32))}
