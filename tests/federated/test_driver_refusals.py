"""Every kind of bad update that we can write, by gossip and blobs: refused, and by which rule."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from federated import codec
from federated.driver import topic_of
from federated.manifest import PluginRef
from federated.rounds.messages import LIFETIME, Commit, Hello, Message, Reveal, commitment
from federated.rounds.wire import decode, encode
from p2p.blobs import blob_root
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    Member,
    assert_agreed,
    open_lab,
    peer_number,
    refused,
    start_idle,
    start_with,
    tiny_manifest,
)


def update(w: Any = None, count: Any = None, **others: Any) -> bytes:
    """An update of the tiny task, with other tensors in the places named."""
    tensors = {"count": np.zeros((), np.int64), "w": np.zeros(4, np.float32)}
    given = {"count": count, "w": w, **others}
    return codec.encode(tensors | {name: array for name, array in given.items() if array is not None})


def full(value: float) -> bytes:
    return update(np.full(4, value, np.float32))


def safetensors(header: Any, data: bytes = bytes(24)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def saved_by_torch() -> bytes:
    """What `torch.save` writes: an archive with a pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": [0.0] * 4}))
    return file.getvalue()


class Runs:
    """What is run when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('unpickled')",))


COUNT, W = entry("I64", [], 0, 8), entry("F32", [4], 8, 24)
GOOD = {"count": COUNT, "w": W}
HUGE = 1 << 40

BYTES = {
    "nan": (full(np.nan), "finite"),
    "one-nan": (update(np.array([0, 0, 0, np.nan], np.float32)), "finite"),
    "inf": (full(np.inf), "finite"),
    "minus-inf": (full(-np.inf), "finite"),
    "1e30": (full(1e30), "norm"),
    "largest-float": (full(float(np.finfo(np.float32).max)), "norm"),
    "largest-int": (update(count=np.array(np.iinfo(np.int64).max)), "norm"),
    "wrong-shape": (update(np.zeros(5, np.float32)), "schema"),
    "wrong-rank": (update(np.zeros((2, 2), np.float32)), "schema"),
    "no-values": (update(np.zeros(0, np.float32)), "schema"),
    "wrong-dtype": (update(np.zeros(4, np.float64)), "schema"),
    "missing-tensor": (codec.encode({"w": np.zeros(4, np.float32)}), "schema"),
    "another-tensor": (update(x=np.zeros(1, np.float32)), "schema"),
    "aggregators-tensor": (update(**{"atcp.aggregator/v/w": np.zeros(4, np.float32)}), "schema"),
    "no-bytes": (b"", "header"),
    "cut-short": (full(0.0)[:-1], "size"),
    "bytes-behind": (full(0.0) + b"\0", "size"),
    "pickle": (pickle.dumps({"w": np.zeros(4)}), "header"),
    "pickle-that-runs": (pickle.dumps(Runs()), "header"),
    "torch-save": (saved_by_torch(), "header"),
    "npy-of-objects": (b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (4,)}", "header"),
    "gzip-bomb": (gzip.compress(bytes(1 << 22)), "header"),
    "header-bomb": ((1 << 62).to_bytes(8, "little") + bytes(1000), "header"),
    "header-over-its-limit": (safetensors(b" " * (1 << 19)) + bytes(8), "header"),
    "nested-bomb": (safetensors(b"[" * 100_000), "header"),
    "shape-bomb": (safetensors({"count": COUNT, "w": entry("F32", [HUGE, HUGE], 8, 24)}), "schema"),
    "shape-negative": (safetensors({"count": COUNT, "w": entry("F32", [-4], 8, 24)}), "header"),
    "shape-of-floats": (safetensors({"count": COUNT, "w": entry("F32", [4.0], 8, 24)}), "header"),
    "aliases": (safetensors({"count": COUNT, "w": entry("F32", [4], 0, 16)}), "layout"),
    "gap": (safetensors({"count": COUNT, "w": entry("F32", [4], 16, 32)}, bytes(32)), "layout"),
    "named-twice": (safetensors(json.dumps(GOOD)[:-1].encode() + b',"w":[]}'), "header"),
    "other-order": (safetensors({"w": W, "count": COUNT}), "layout"),
    "with-metadata": (safetensors({**GOOD, "__metadata__": {"a": "b"}}), "header"),
    "unknown-dtype": (safetensors({"count": COUNT, "w": entry("BF16", [8], 8, 24)}), "schema"),
}

CLAIMS: dict[str, tuple[dict[str, int], str]] = {
    "no-examples": ({"examples": 0}, "examples"),
    "a-billion-examples": ({"examples": 10**9}, "examples"),
    "another-size": ({"size": 1}, "missing"),
    "a-bomb-of-bytes": ({"size": 1 << 29}, "size"),
}


class Liar:
    """Talks as a member does; its update is `data`, of which it claims what it likes."""

    first: bytes | None = None  # commitment, where it says no other

    def __init__(self, lab: Lab, member: Member, data: bytes, claims: dict[str, int]) -> None:
        self._lab = lab
        self._member = member
        self._claims = {"size": len(data), "examples": 1, **claims}
        self._root = blob_root(data)
        self._seq = 0

    async def run(self) -> None:
        """Commits when others commit, and reveals when others reveal."""
        base: dict[int, bytes] = {}
        with self._member.pubsub.subscribe(topic_of(self._lab.manifest)) as subscription:
            async for message in subscription:
                body = decode(message.data).body
                match body:
                    case Hello(round=number):
                        base[number] = body.base
                        self._publish(body)
                    case Commit(round=number) if number in base or self.first is not None:
                        base.setdefault(number, bytes(32))
                        self._publish(Commit(round=number, commitment=self._commitment(number, base[number])))
                    case Reveal(round=number):
                        self._publish(self._reveal(number))

    def _commitment(self, number: int, base: bytes) -> bytes:
        task = self._lab.manifest.task_id
        return commitment(self._member.host.peer_id, task, base, self._reveal(number))

    def _reveal(self, number: int) -> Reveal:
        return Reveal(round=number, root=self._root, nonce=bytes(32), **self._claims)

    def _publish(self, body: Hello | Commit | Reveal) -> None:
        self._seq += 1
        expiry = int(self._lab.wall_time() + LIFETIME)
        message = Message(task=self._lab.manifest.task_id, seq=self._seq, expiry=expiry, body=body)
        self._member.pubsub.publish(topic_of(self._lab.manifest), encode(message))


class Replayer(Liar):
    """Commits once, and says the same in every round."""

    def _commitment(self, number: int, base: bytes) -> bytes:
        self.first = self.first or super()._commitment(number, base)
        return self.first


HONEST = (1, 2, 3)


async def rule_for(data: bytes, claims: dict[str, int]) -> str:
    """The rule by which all honest members refuse the update of member 4; the round goes on without it."""
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, *HONEST) as nursery:
        liar = await nursery.start(start_idle, lab, 4)
        liar.blobs.store.put(data)
        nursery.start_soon(Liar(lab, liar, data, claims).run)
        await lab.until_round(1, *HONEST)
    assert_agreed(lab, 1)
    name = str(peer_number(4))
    rules = set()
    for number in HONEST:
        [(peer, rule)] = refused(lab, number, 1)
        assert peer == name
        assert lab.rounds(number)[1]["participants"] == [str(peer_number(at)) for at in sorted_numbers(lab)]
        rules.add(rule)
    [rule] = rules
    return rule


def sorted_numbers(lab: Lab) -> list[int]:
    """The honest members in the order of their ids."""
    return sorted(HONEST, key=peer_number)


async def test_an_update_like_the_others_passes(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="not enough values to unpack"):
        await rule_for(full(0.0), {})  # nobody refuses it


@pytest.mark.parametrize(("data", "rule"), BYTES.values(), ids=BYTES)
async def test_bytes_that_are_no_update_are_refused(
    data: bytes, rule: str, autojump_clock: MockClock
) -> None:
    assert await rule_for(data, {}) == rule


@pytest.mark.parametrize(("claims", "rule"), CLAIMS.values(), ids=CLAIMS)
async def test_claims_that_are_not_true_are_refused(
    claims: dict[str, int], rule: str, autojump_clock: MockClock
) -> None:
    assert await rule_for(full(0.0), claims) == rule


async def test_a_commit_of_an_earlier_round_counts_in_no_other(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=3))
    data = full(0.0)
    async with open_lab(lab, *HONEST) as nursery:
        member = await nursery.start(start_idle, lab, 4)
        member.blobs.store.put(data)
        nursery.start_soon(Replayer(lab, member, data, {}).run)
        await lab.until_round(3, *HONEST)
    assert_agreed(lab, 3)
    name = str(peer_number(4))
    for number in HONEST:
        taken = [name in lab.rounds(number)[at]["participants"] for at in (1, 2, 3)]
        assert taken == [True, False, False]
        offences = {
            (event["round"], event["rule"])
            for event in lab.reports[number]
            if event["event"] == "offence" and event["peer"] == name
        }
        assert {(2, "commitment"), (3, "commitment")} <= offences


NOVELTY = PluginRef(
    name="checks",
    settings={"checks": [{"name": "update-check"}, {"name": "novelty", "settings": {"free_riders": True}}]},
)


@pytest.mark.parametrize(
    ("trainer", "rules"),
    [("Lazy", [[], ["free-rider"], ["free-rider"]]), ("Copies", [["near-duplicate"]] * 3)],
)
async def test_who_lives_on_the_work_of_others_is_refused(
    trainer: str, rules: list[list[str]], autojump_clock: MockClock
) -> None:
    lab = Lab(
        tiny_manifest(
            5,
            rounds=3,
            trainer=PluginRef(name="scatters"),
            aggregator=PluginRef(name="fedavgm", settings={"momentum": 0.0}),
            validator=NOVELTY,
        )
    )
    members = sorted(range(1, 6), key=peer_number)
    *honest, dishonest = members  # the first has the point 0, which is what is copied
    async with open_lab(lab, *honest) as nursery:
        await nursery.start(start_with, lab, dishonest, tiny.registry(scatters=trainer))
        await lab.until_round(3, *members)
    assert_agreed(lab, 3)
    two = {str(peer_number(honest[0])), str(peer_number(dishonest))} if trainer == "Copies" else set()
    for number in honest:
        for at, expected in enumerate(rules, start=1):
            found = refused(lab, number, at)
            assert [rule for _, rule in found] == expected
            assert {peer for peer, _ in found} <= (two or {str(peer_number(dishonest))})


async def test_a_model_that_gets_too_bad_is_not_followed_and_the_round_is_skipped(
    autojump_clock: MockClock,
) -> None:
    lab = Lab(tiny_manifest(4, rounds=3, validator=PluginRef(name="steady")))  # the members' mean is 2
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_round(3, 1, 2, 3, 4)
    assert_agreed(lab, 3)
    for number in (1, 2, 3, 4):
        rounds = [lab.rounds(number)[at] for at in (1, 2, 3)]
        assert [report["skipped"] for report in rounds] == [False, True, True]
        assert len({report["digest"] for report in rounds}) == 1
        reasons = [event["reason"] for event in lab.task_events(number) if "reason" in event]
        assert reasons[0].startswith("round 2: the updates make no model: the model stays as it is: ")
