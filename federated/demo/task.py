"""The task of the demo: scikit-learn's digits, unlike from peer to peer, and its yardstick."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from federated.blame import blamed
from federated.manifest import PluginRef, RoundPolicy, TaskManifest
from federated.plugin import PeerContext, TrainContext
from federated.registry import Registry
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

ALPHA = 0.5  # of the Dirichlet split
TRAINERS = {"numpy": "numpy-mlp", "torch": "torch-mlp"}
# Chosen for accuracy on many splits, with members away too, at 20 ms of local work a round. A batch times
# the first layer is just small enough that OpenBLAS stays on one thread, whatever the environment says.
TRAINING: dict[str, JsonValue] = {"hidden": [256], "epochs": 8, "batch": 16, "lr": 0.3, "decay": 0.95}
MAX_RATIO = 20.0  # honest updates came up to 8 times the median: a member that is back learns much at once
POLICY = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=10.0, grace_s=10.0)


def demo_manifest(
    members: Sequence[PeerId], rounds: int, seed: int, trainer: str, name: str = "digits"
) -> TaskManifest:
    """The manifest for `members`; `trainer` is "numpy", "torch", or a plugin that has data and model."""
    preprocessor = knows = PluginRef(name=trainer)
    if trainer in TRAINERS:
        preprocessor = PluginRef(name="digits", settings={"alpha": ALPHA, "seed": seed})
        knows = PluginRef(name=TRAINERS[trainer], settings=TRAINING)
    return TaskManifest(
        name=name,
        seed=seed,
        rounds=rounds,
        members=[str(peer) for peer in members],
        preprocessor=preprocessor,
        trainer=knows,
        aggregator=PluginRef(name="weighted-mean"),
        validator=PluginRef(name="update-check", settings={"max_ratio": MAX_RATIO}),
        policy=POLICY,
    )


def centralised_accuracy(rounds: int, seed: int, trainer: str) -> float:
    """Held-out accuracy of one machine that has all the data, after the same number of rounds.

    0 for a task that measures none. Blocking; run it in a worker thread. Raises `DataError`, `PluginError`.
    """
    peer = PeerId.from_public_key(KeyPair.from_seed(bytes(32)).public)
    plugins = Registry().load(demo_manifest([peer], rounds, seed, trainer))
    alone = PeerContext(peer=peer, members=(peer,), index=0)
    with blamed("task" if trainer not in TRAINERS else "trainer", trainer):
        data = plugins.preprocessor.load(alone)
        parameters = plugins.trainer.init(seed)
        for number in range(1, rounds + 1):
            context = TrainContext(round=number, seed=seed + number, should_stop=lambda: False)
            parameters = plugins.trainer.train(parameters, data.train, context).parameters
        if data.holdout is None:
            return 0.0
        return plugins.trainer.evaluate(parameters, data.holdout).get("accuracy", 0.0)
