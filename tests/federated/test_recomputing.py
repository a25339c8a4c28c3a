"""A block computed again from its bytes: what it comes to, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import pytest

from federated import codec
from federated.compute import InlineCompute
from federated.manifest import PluginRef
from federated.plugin import PeerContext
from federated.recomputing import Recomputing, model_of
from federated.rounds.actions import Recompute
from federated.rounds.committee import Membership, set_of
from federated.rounds.events import Input, Verdict
from federated.rounds.inputs import pack_inputs
from federated.rounds.messages import Block, Certificate
from federated.rounds.past import Base
from federated.storage import Shelf
from federated.workbench import as_claimed, prepare
from p2p.blobs import Blobs, BlobUnavailable, blob_root
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import tiny_manifest


class Place:
    """A true block of three updates, as it was certified, and somewhere to compute it again."""

    def __init__(self, **plugins: str) -> None:
        self.manifest = tiny_manifest(3, validator=PluginRef(name="update-check"))
        peers = self.manifest.peer_ids
        context = PeerContext(peer=peers[0], members=peers, index=0)
        self.bench = prepare(self.manifest, tiny.registry(**plugins).load(self.manifest), context)
        self.blobs: dict[bytes, bytes] = {}
        self.held: list[bytes] = []
        self.membership = Membership(self.manifest.task_id, peers)
        self.base = model_of(self.bench.initial)
        self.put(self.bench.initial)
        honest = prepare(self.manifest, tiny.registry().load(self.manifest), context)
        parameters, made = honest.decode(honest.initial), []
        for number, peer in enumerate(peers):
            delta = {"count": parameters["count"] * 0 + 1, "w": parameters["w"] * 0 + number}
            data = codec.encode(delta)
            item = Input(peer=peer, root=self.put(data), size=len(data), examples=number + 1)
            update = honest.check(item, data, parameters)
            assert not isinstance(update, str)
            made.append((item, as_claimed(update, item)))
        made.sort(key=lambda pair: pair[0].root)
        self.inputs = tuple(item for item, _ in made)
        model = honest.aggregate(parameters, [update for _, update in made])
        assert isinstance(model, bytes)
        self.block = Block(
            task=self.manifest.task_id,
            parent=self.manifest.task_id,
            round=1,
            base=self.base.digest,
            inputs=self.put(pack_inputs(self.inputs, self.membership)),
            participants=set_of(range(3)),
            examples=6,
            model=model_of(model),
        )

    def put(self, data: bytes) -> bytes:
        self.blobs[blob_root(data)] = data
        return blob_root(data)

    async def fetch(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        assert holders
        if root not in self.blobs:
            raise BlobUnavailable(root, ["nobody has it"])
        return self.blobs[root]

    def expect(self, root: bytes) -> None:
        """As `Shelf.expect`."""

    def hold(self, roots: Iterable[bytes]) -> None:
        self.held += roots

    async def recompute(self) -> tuple[Verdict, str | None]:
        recomputing = Recomputing(
            bench=self.bench,
            blobs=cast("Blobs", self),
            compute=InlineCompute(),
            shelf=cast("Shelf", self),
        )
        found = await recomputing.perform(
            Recompute(
                certificate=Certificate(view=1, block=self.block, votes=()),
                base=self.base,
                bases=(Base(digest=self.base.digest, participants=0),),
                membership=self.membership,
                minimum=2,
                max_update=1 << 20,
                holders=self.manifest.peer_ids[:1],
            )
        )
        assert (found.round, found.block) == (1, self.block.hash)
        return found.verdict, found.rule


async def test_a_true_block_agrees_and_nothing_is_kept() -> None:
    place = Place()
    assert await place.recompute() == (Verdict.AGREES, None)
    assert not place.held


async def test_another_model_differs_and_all_that_shows_it_is_kept() -> None:
    place = Place()
    place.block = replace(place.block, model=replace(place.block.model, digest=bytes(32)))
    assert await place.recompute() == (Verdict.DIFFERS, "digest")
    assert place.held == [place.base.root, place.block.inputs, *(item.root for item in place.inputs)]


async def test_an_update_that_breaks_a_rule_and_a_list_that_is_none_differ() -> None:
    place = Place()
    root = place.inputs[1].root
    true, place.blobs[root] = place.blobs[root], b"no update"
    assert (await place.recompute())[0] is Verdict.DIFFERS
    place.blobs[root] = true
    place.block = replace(place.block, inputs=place.put(b"no list"))
    assert await place.recompute() == (Verdict.DIFFERS, "list")


@pytest.mark.parametrize("what", ["base", "list", "update"])
async def test_bytes_that_nobody_has_prove_nothing(what: str) -> None:
    place = Place()
    roots = {"base": place.base.root, "list": place.block.inputs, "update": place.inputs[2].root}
    del place.blobs[roots[what]]
    assert await place.recompute() == (Verdict.UNAVAILABLE, None)
    assert not place.held


async def test_a_base_that_is_no_model_is_not_the_fault_of_this_block() -> None:
    place = Place()
    place.blobs[place.base.root] = b"another"
    assert await place.recompute() == (Verdict.UNAVAILABLE, None)


@pytest.mark.parametrize(
    ("plugin", "rule"),
    [({"weighted-mean": "FailingMean"}, "plugin"), ({"update-check": "FailingCheck"}, "plugin")],
)
async def test_updates_of_which_the_plugins_make_nothing_differ(plugin: dict[str, str], rule: str) -> None:
    assert await Place(**plugin).recompute() == (Verdict.DIFFERS, rule)
