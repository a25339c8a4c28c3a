"""Every kind of hostile update, made smaller in each way: one table, through gossip and blobs.

Those that are not compressed are in `test_driver_refusals`.

In each round one member sends the next line of the table. All others refuse it by the rule that stands there,
which is in the audit trail, and go on without it.
"""

from __future__ import annotations

import gzip
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from federated import codec
from federated.manifest import PluginRef
from federated.monitor import audit_of
from federated.parameters import Parameters
from federated.plugin import Compressor, TrainContext
from federated.rounds.messages import MAX_EXAMPLES, Reveal
from p2p.blobs import blob_root
from plugins.compression.dense import Int4, Int8, Sign
from plugins.compression.indices import packed_size
from plugins.compression.power_sgd import PowerSGD
from plugins.compression.top_k import TopK
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    Member,
    assert_agreed,
    open_lab,
    peer_number,
    refused,
    start_idle,
    tiny_manifest,
)
from tests.federated.test_driver_refusals import HONEST, Liar, Runs, entry, safetensors, saved_by_torch
from tests.federated.test_workbench import base, bench, item

LIAR = 4
PACKED = "_"  # the array of bytes in a compressed update
COMPRESSORS = ("int8", "int4", "sign", "top-k", "power-sgd")
NAN, INF, LARGE = 0x7FC0, 0x7F80, 0x7149  # the upper half of float32: not a number, infinite, 1e30

# what a packed update ends in that has a level which does not exist, or bits behind the last one
NO_LEVEL: dict[type, list[int]] = {
    Int8: [0x80],
    Int4: [0],
    Sign: [0xFF],
    TopK: [0xFF],
    PowerSGD: [0, 0x80],
}


@dataclass(frozen=True)
class Attack:
    """What is sent, what is said of it, and the rule that refuses it."""

    name: str
    data: bytes
    rule: str
    claims: dict[str, int] = field(default_factory=dict)


def honest(compressor: Compressor | None) -> Parameters:
    """The arrays of an update like the others."""
    grid = tiny.Grid()
    base = grid.init(3)
    new = grid.train(
        {name: array.copy() for name, array in base.items()},
        1.0,
        TrainContext(round=1, seed=1, should_stop=lambda: False),
    ).parameters
    delta = {name: new[name] - array for name, array in base.items()}
    return delta if compressor is None else compressor.compress(delta, {}, 1).payload


def attacks(compressor: Compressor) -> Iterator[Attack]:
    """The table, for updates that are compressed so."""
    good = honest(compressor)

    def sent(**changes: Any) -> bytes:
        return codec.encode({name: array for name, array in {**good, **changes}.items() if array is not None})

    for name, value, rule in (("nan", np.nan, "finite"), ("inf", -np.inf, "finite"), ("1e30", 1e30, "norm")):
        yield Attack(name, sent(w=np.array([0, 0, 0, value], np.float32)), rule)
    yield Attack("shape", sent(w=np.zeros(5, np.float32)), "schema")
    yield Attack("dtype", sent(w=np.zeros(4, np.float64)), "schema")
    yield Attack("missing", sent(w=None), "schema")
    yield Attack("extra", sent(x=np.zeros(1, np.float32)), "schema")
    yield Attack("pickle", pickle.dumps(Runs()), "header")
    yield Attack("torch.save", saved_by_torch(), "header")
    yield Attack("gzip bomb", gzip.compress(bytes(1 << 22)), "header")
    yield Attack("header bomb", (1 << 62).to_bytes(8, "little") + bytes(1000), "header")
    huge = {"w": entry("F32", [1 << 40], 0, 1 << 42)}
    yield Attack("shape bomb", safetensors(huge), "size")
    yield Attack("no examples", sent(), "examples", {"examples": 0})
    yield Attack("too many examples", sent(), "examples", {"examples": MAX_EXAMPLES})
    yield Attack("size below", sent(), "missing", {"size": len(sent()) - 1})
    yield Attack("size bomb", sent(), "size", {"size": 1 << 29})
    yield from packed_attacks(compressor, good)


def packed_attacks(compressor: Compressor, good: Parameters) -> Iterator[Attack]:
    """What can be wrong with the bytes that stand for numbers."""
    packed = good[PACKED]

    def sent(array: Any) -> bytes:
        return codec.encode({**good, PACKED: array})

    yield Attack("not compressed", codec.encode(honest(None)), "schema")
    yield Attack("packed: dtype", sent(packed.view(np.int8)), "schema")
    yield Attack("packed: longer", sent(np.append(packed, np.uint8(0))), "schema")
    yield Attack("packed: bomb", sent(np.zeros(1 << 19, np.uint8)), "schema")
    yield Attack("packed: missing", codec.encode({n: a for n, a in good.items() if n != PACKED}), "schema")
    indices = index_bytes(compressor)
    too_large = "scale" if isinstance(compressor, PowerSGD) else "norm"  # a product of two such factors
    for name, scale, rule in (("nan", NAN, "scale"), ("inf", INF, "scale"), ("1e30", LARGE, too_large)):
        wrong = packed.copy()
        wrong[indices : indices + 2] = np.array([scale], "<u2").view(np.uint8)
        yield Attack(f"scale: {name}", sent(wrong), rule)
    wrong = packed.copy()
    ending = NO_LEVEL[type(compressor)]
    wrong[-len(ending) :] = ending
    yield Attack("level", sent(wrong), "level")
    if indices:
        wrong = packed.copy()
        wrong[:indices] = 0xFF
        yield Attack("indices", sent(wrong), "indices")


def index_bytes(compressor: Compressor) -> int:
    """How many bytes say which numbers are meant; the scales follow."""
    if not isinstance(compressor, TopK):
        return 0
    count = math.ceil(compressor.share * math.prod(tiny.GRID))
    return packed_size(count, math.prod(tiny.GRID))


class Hostile(Liar):
    """Sends another update in each round; after the last one it says again what it said in the first."""

    def __init__(self, lab: Lab, member: Member, table: list[Attack]) -> None:
        super().__init__(lab, member, b"", {})
        self._table = table

    def _commitment(self, number: int, base: bytes) -> bytes:
        if number > len(self._table):
            assert self.first is not None
            return self.first
        if number > 1:  # who commits has reported the round before
            ended = (self._lab.rounds(member).get(number - 1) for member in HONEST)
            base = bytes.fromhex(next(report["digest"] for report in ended if report is not None))
        made = super()._commitment(number, base)
        self.first = self.first or made
        return made

    def _reveal(self, number: int) -> Reveal:
        attack = self._table[number - 1 if number <= len(self._table) else 0]
        claims = {"size": len(attack.data), "examples": 1, **attack.claims}
        return Reveal(round=number, root=blob_root(attack.data), nonce=bytes(32), **claims)


@pytest.mark.parametrize("name", COMPRESSORS)
async def test_hostile_updates_are_refused_each_by_its_rule(name: str, autojump_clock: MockClock) -> None:
    ref = PluginRef(name=name)
    compressor: Compressor = tiny.registry().create("compressor", ref)
    table = list(attacks(compressor))
    last = len(table) + 1
    lab = Lab(tiny_manifest(4, rounds=last, trainer=PluginRef(name="grid"), compressor=ref))
    async with open_lab(lab, *HONEST) as nursery:
        liar = await nursery.start(start_idle, lab, LIAR)
        for attack in table:
            liar.blobs.store.put(attack.data)
        nursery.start_soon(Hostile(lab, liar, table).run)
        await lab.until_round(last, *HONEST)
    assert_agreed(lab, last)
    peer = str(peer_number(LIAR))
    for number in HONEST:
        rounds = lab.rounds(number)
        expected = {attack.name: [(peer, attack.rule)] for attack in table}
        assert {attack.name: refused(lab, number, at) for at, attack in enumerate(table, 1)} == expected
        for at, attack in enumerate(table, 1):
            assert len(rounds[at]["participants"]) == len(HONEST)
            trail = [entry[:4] for entry in audit_of("me", rounds[at])]
            assert (peer, "update", f"round {at}", attack.rule) in trail
        replayed = {"event": "offence", "round": last, "peer": peer, "rule": "commitment"}
        assert [event for event in lab.reports[number] if event.items() >= replayed.items()]
        assert peer not in rounds[last]["participants"]
        assert all(np.isfinite(event["loss"]) for event in rounds.values())


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_update_that_the_attacks_are_made_of_is_a_good_one(name: str) -> None:
    made = bench(trainer="grid", compressor=name)
    data = codec.encode(honest(tiny.registry().create("compressor", PluginRef(name=name))))
    assert not isinstance(made.check(item(data), data, base(made)), str)
