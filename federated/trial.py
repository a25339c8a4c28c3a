"""A few rounds of a task by calls alone, without network, threads or files: for the tests of who writes one.

The plugins do what they do in a round: each member trains on the same model, each update is encoded, decoded
and checked, those that are fine are screened and aggregated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import ValidationError

from federated.errors import PluginError
from federated.manifest import PluginRef, TaskManifest, first_problem
from federated.plugin import ModelUpdate, PeerContext
from federated.registry import Registry
from federated.rounds.events import Input
from federated.workbench import Refusals, Workbench, prepare
from p2p.blobs.merkle import blob_root
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

Measured = dict[str, float | None]

MEAN = PluginRef(name="weighted-mean")
CHECK = PluginRef(name="update-check")


def try_out(
    task: str | None = None,
    *,
    members: int = 4,
    rounds: int = 3,
    seed: int = 7,
    preprocessor: PluginRef | None = None,
    trainer: PluginRef | None = None,
    aggregator: PluginRef = MEAN,
    validator: PluginRef = CHECK,
) -> list[Measured]:
    """What the members measure after each round, on average: `accuracy` and `loss`, None without a value.

    `task` is a plugin that has both data and model, `preprocessor` and `trainer` name others in its place.
    Raises `PluginError` when a plugin fails, or makes an update that is refused, naming the rule.
    """
    manifest = _manifest(
        members=[str(_peer(number)) for number in range(members)],
        seed=seed,
        rounds=rounds,
        preprocessor=preprocessor or PluginRef(name=task or ""),
        trainer=trainer or PluginRef(name=task or ""),
        aggregator=aggregator,
        validator=validator,
    )
    registry = Registry()
    benches = [
        prepare(
            manifest, registry.load(manifest), PeerContext(peer=peer, members=manifest.peer_ids, index=index)
        )
        for index, peer in enumerate(manifest.peer_ids)
    ]
    model, measured = benches[0].initial, list[Measured]()
    for number in range(1, rounds + 1):
        model = _one_round(benches, manifest.peer_ids, model, number)
        each = [bench.evaluate(bench.decode(model)) for bench in benches]
        measured.append({name: _mean([values[name] for values in each]) for name in each[0]})
    return measured


def _one_round(benches: Sequence[Workbench], peers: Sequence[PeerId], model: bytes, number: int) -> bytes:
    """The next model."""
    base, updates = benches[0].decode(model), list[ModelUpdate]()
    for bench, peer in zip(benches, peers, strict=True):
        key = hashlib.sha256(f"{number} {peer}".encode()).digest()  # in a trial there is nothing to hide
        trained = bench.train(base, number, lambda: False, key=key)
        root = blob_root(trained.data)
        item = Input(peer=peer, root=root, size=len(trained.data), examples=trained.examples)
        checked = bench.check(item, trained.data, base)
        if isinstance(checked, str):
            raise PluginError(
                f"round {number}: the update of member {len(updates)} breaks the rule {checked!r}"
            )
        updates.append(checked)
    result = benches[0].aggregate(base, sorted(updates, key=lambda update: update.root))
    if isinstance(result, Refusals):
        raise PluginError(
            f"round {number}: {len(result.refused)} updates break the rule {result.refused[0][1]!r}"
        )
    return result


def _manifest(**values: object) -> TaskManifest:
    try:
        return TaskManifest.model_validate({"name": "trial", **values})
    except ValidationError as exc:
        raise PluginError(first_problem(exc)) from exc


def _peer(number: int) -> PeerId:
    return PeerId.from_public_key(KeyPair.from_seed(hashlib.sha256(b"%d" % number).digest()).public)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
