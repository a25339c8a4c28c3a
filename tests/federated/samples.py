"""Small values that the tests of the training layer share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from federated.manifest import PluginRef, TaskManifest
from federated.parameters import Parameters
from federated.plugin import ModelUpdate
from p2p.keys import KeyPair
from p2p.peer_id import PeerId


@cache
def peer(number: int) -> PeerId:
    seed = bytes([number]) * 32 if number < 256 else number.to_bytes(32)
    return PeerId.from_public_key(KeyPair.from_seed(seed).public)


def members(count: int) -> list[str]:
    return [str(peer(number)) for number in range(count)]


def manifest(**changes: Any) -> TaskManifest:
    values: dict[str, Any] = {
        "name": "sample",
        "seed": 1,
        "rounds": 3,
        "members": members(3),
        "preprocessor": PluginRef(name="digits"),
        "trainer": PluginRef(name="numpy-mlp"),
        "aggregator": PluginRef(name="weighted-mean"),
        "validator": PluginRef(name="update-check"),
    }
    return TaskManifest(**{**values, **changes})


def model(value: float = 0.0) -> Parameters:
    return {"bias": np.full(2, value, np.float32), "weight": np.full((3, 2), value, np.float32)}


def update(number: int, value: float = 1.0, examples: int = 10) -> ModelUpdate:
    return ModelUpdate(peer=peer(number), root=bytes([number]) * 32, delta=model(value), examples=examples)
