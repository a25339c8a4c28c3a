"""The manifest of a simulated training task, from a few lines of a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from federated.manifest import MAX_SEED, PluginRef, RoundPolicy, TaskManifest, first_problem
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from sim.scenario.model import TaskLoad

ALPHA = 0.5  # of the Dirichlet split: shards as unlike as in the demo
# A small layer learns the digits as well as the demo's: 96 % with 10 members, 91 % with 64 after 5 rounds. An
# update is then 10 KB and not 77 KB, of which every member gets everybody's; and a training takes 0.5 ms.
TRAINING: dict[str, JsonValue] = {"hidden": [32], "epochs": 8, "batch": 16, "lr": 0.3, "decay": 0.95}
MAX_RATIO = 20.0  # honest updates came up to 8 times the median: a member that is back learns much at once


def manifest_of(load: TaskLoad, seed: int, members: Sequence[PeerId]) -> TaskManifest:
    """The task of these members. `seed` is the run's: it decides the split and the first model.

    What `load.settings` says of a plugin comes on top of settings that make the digits learn. Raises
    `InvalidInput` with one line for what cannot be: a name that no plugin can have, too many members.
    """
    try:
        return TaskManifest(
            name=load.name,
            seed=seed % (MAX_SEED + 1),
            rounds=load.rounds,
            members=[str(peer) for peer in members],
            committee=load.committee,
            preprocessor=_plugin(load, "preprocessor", load.preprocessor, seed),
            trainer=_plugin(load, "trainer", load.trainer, seed),
            aggregator=_plugin(load, "aggregator", load.aggregator, seed),
            validator=_plugin(load, "validator", load.validator, seed),
            policy=RoundPolicy(train_deadline_s=load.train_deadline, phase_deadline_s=load.phase_deadline),
        )
    except ValidationError as exc:
        raise InvalidInput(f"task {load.name}: {first_problem(exc)}") from exc


def _plugin(load: TaskLoad, role: str, name: str, seed: int) -> PluginRef:
    defaults: dict[str, dict[str, JsonValue]] = {
        "digits": {"alpha": ALPHA, "seed": seed % (MAX_SEED + 1)},
        "numpy-mlp": TRAINING,
        "torch-mlp": TRAINING,
        "update-check": {"max_ratio": MAX_RATIO},
    }
    return PluginRef(name=name, settings={**defaults.get(name, {}), **load.settings.get(role, {})})
