"""Prints a digest of what each rule makes of the same updates: for comparing processors.

python -m tests.plugins.aggregation_bits
"""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np

from federated.codec import encode
from federated.manifest import PluginRef
from federated.parameters import split
from federated.plugin import ModelUpdate
from plugins.aggregation.pipeline import RULES, make_rule
from plugins.aggregation.server import FedAdagrad, FedAdam, FedAvgM, FedYogi
from plugins.training.numpy_mlp import NumpyMLP
from tests.federated.samples import peer

COUNT = 11
SETTINGS = {"krum": {"f": 3}, "multi-krum": {"f": 3}, "bulyan": {"f": 2}}


def root_set(generator: np.random.Generator) -> str:
    file = io.BytesIO()
    np.savez_compressed(file, x=generator.standard_normal((50, 64)), y=generator.integers(0, 10, 50))
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    """One line a rule: its name and the digest."""
    generator = np.random.default_rng(1)
    base = NumpyMLP(hidden=[300]).init(1)
    updates = [
        ModelUpdate(
            peer=peer(number),
            root=bytes([number]),
            delta={
                name: generator.standard_normal(array.shape).astype(np.float32)
                for name, array in base.items()
            },
            examples=10 + number,
            staleness=number % 3,
        )
        for number in range(COUNT)
    ]
    settings = SETTINGS | {
        "fltrust": {"root": root_set(generator)},
        "pipeline": {
            "steps": [
                {"name": "clip"},
                {"name": "nnm", "settings": {"f": 3}},
                {"name": "bucketing"},
            ],
            "rule": {"name": "geometric-median"},
        },
    }
    for name in RULES:
        model = make_rule(PluginRef(name=name, settings=settings.get(name, {}))).aggregate(base, updates)
        print(name, hashlib.sha256(encode(model)).hexdigest())
    for optimiser in (FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()):
        model = base | optimiser.init(base)
        for _ in range(2):
            model = optimiser.aggregate(model, updates)
        assert split(model)[1]
        print(type(optimiser).__name__, hashlib.sha256(encode(model)).hexdigest())


if __name__ == "__main__":
    main()
