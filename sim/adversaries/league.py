"""Members of a task that poison it together: a registry whose trainers know what everybody learns.

    league = League(liars)
    registry = league.registry(ATTACKS["alie"])     for each liar, instead of `Registry()`

What the honest members hand in is computed from their data, by the plugins that the task has, once for all
liars that are in this process. That needs tasks whose data everybody has, as `digits`; and trainers that keep
nothing from round to round, since nobody sees what another one keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from federated import codec
from federated.errors import PluginError
from federated.manifest import TaskManifest
from federated.parameters import Parameters, difference
from federated.plugin import Dataset, PeerContext, Preprocessor, TrainContext, Trainer, TrainResult
from federated.registry import Registry, TaskPlugins
from federated.workbench import Workbench, prepare
from p2p.peer_id import PeerId
from sim.adversaries.poisoning import Attack, Matrix, Scene, Vector
from sim.adversaries.roles import POISONER, Role
from sim.adversaries.training import CorruptedRegistry

if TYPE_CHECKING:
    from sim.scenario.model import Adversary

SEED = 1 << 32  # of a RandomState: below


class League:
    """Who poisons tasks together. What the honest do is remembered for the newest round of a task."""

    def __init__(self, liars: Collection[PeerId]) -> None:
        self.liars = tuple(liars)
        self._benches: dict[bytes, list[Workbench]] = {}  # by task: of its honest members
        self._known: dict[bytes, tuple[bytes, Matrix]] = {}  # by task: (round and base, their deltas)

    def registry(self, attack: Attack) -> Registry:
        """The plugins of one of the liars; see `poisoning.ATTACKS`."""
        return _PoisonedRegistry(self, attack)

    def honest(self, manifest: TaskManifest, base: Parameters, round_number: int) -> Matrix:
        """What all honest members make of `base` in this round, one flat delta a row.

        Raises `PluginError`, `DataError` for a task that cannot be known.
        """
        key = hashlib.sha256(b"%d" % round_number + flat(base).tobytes()).digest()
        known = self._known.get(manifest.task_id)
        if known is None or known[0] != key:
            deltas = [self._delta(bench, base, round_number) for bench in self._honest(manifest)]
            known = self._known[manifest.task_id] = (key, np.stack(deltas))
        return known[1]

    def _honest(self, manifest: TaskManifest) -> list[Workbench]:
        if manifest.task_id not in self._benches:
            if manifest.compressor is not None or manifest.privacy is not None:
                raise PluginError("what others hand in is only known where updates travel as they are")
            plugins, peers = Registry().load(manifest), manifest.peer_ids
            self._benches[manifest.task_id] = [
                prepare(manifest, plugins, PeerContext(peer=peer, members=peers, index=index))
                for index, peer in enumerate(peers)
                if peer not in self.liars
            ]
        return self._benches[manifest.task_id]

    def _delta(self, bench: Workbench, base: Parameters, round_number: int) -> Vector:
        data = bench.train(base, round_number, lambda: False).data
        return flat(codec.decode(data, bench.schema, len(data)))


def league_of(adversaries: Mapping[int, Adversary], peers: Sequence[PeerId]) -> League:
    """The league of those nodes that poison tasks; `peers` are the nodes' ids, by number."""
    return League([peers[node] for node in sorted(adversaries) if adversaries[node].role == POISONER])


def registry_of(role: Role, league: League) -> Registry:
    """The plugins of a node; an adversary's trainers may hand in something else."""
    if role.attack is not None:
        return league.registry(role.attack)
    return Registry() if role.corrupt is None else CorruptedRegistry(role.corrupt)


class _PoisonedRegistry(Registry):
    """Its tasks have a trainer that lies, and the data that it lies with."""

    def __init__(self, league: League, attack: Attack) -> None:
        super().__init__()
        self._league = league
        self._attack = attack

    def load(self, manifest: TaskManifest) -> TaskPlugins:
        """As `Registry.load`, with another trainer, and flipped labels where the attack wants them."""
        plugins = super().load(manifest)
        trainer = _Poisoner(plugins.trainer, manifest, self._league, self._attack)
        if not self._attack.flips:
            return replace(plugins, trainer=trainer)
        return replace(plugins, trainer=trainer, preprocessor=_Flipped(plugins.preprocessor))


class _Flipped:
    """Data whose labels are turned round: class k is told as the last one - k."""

    kind = "preprocessor"

    def __init__(self, honest: Preprocessor) -> None:
        self._honest = honest

    def load(self, context: PeerContext) -> Dataset:
        """As the honest one. The last class is the last one that this member has ever seen."""
        found = self._honest.load(context)
        x, y = found.train
        last = max(int(labels.max()) for _, labels in (found.train, found.holdout or found.train))
        return replace(found, train=(x, last - y))


class _Poisoner:
    """The trainer of a liar: it learns, and hands in something else."""

    kind = "trainer"

    def __init__(self, honest: Trainer, manifest: TaskManifest, league: League, attack: Attack) -> None:
        self._honest = honest
        self._manifest = manifest
        self._league = league
        self._attack = attack

    def init(self, seed: int) -> Parameters:
        """As the honest one."""
        return self._honest.init(seed)

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        """The base and what the attack adds to it, for the examples that an honest one would name."""
        result = self._honest.train(parameters, data, context)
        scene = Scene(
            base=parameters,
            own=flat(difference(result.parameters, parameters)),
            honest=lambda: self._league.honest(self._manifest, parameters, context.round),
            members=len(self._manifest.members),
            noise=np.random.RandomState(context.seed % SEED),
        )
        return replace(result, parameters=moved(parameters, self._attack.lie(scene)))

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        """As the honest one."""
        return self._honest.evaluate(parameters, data)


def flat(parameters: Parameters) -> Vector:
    """All values, float64, the arrays in the order of their names."""
    return np.concatenate([parameters[name].ravel() for name in sorted(parameters)]).astype(np.float64)


def moved(base: Parameters, delta: Vector) -> Parameters:
    """`base` plus a flat delta, in its shapes and dtypes."""
    found, start = dict[str, Any](), 0
    for name in sorted(base):
        array = base[name]
        step = delta[start : start + array.size].reshape(array.shape)
        found[name] = (array.astype(np.float64) + step).astype(array.dtype)
        start += array.size
    return found
