"""The list of the updates that a block is made of, as bytes: what its `inputs` is the root of.

    root 32 │ member 2 │ size 8 │ examples 8 │ staleness 1        big-endian, in the order of the roots

It is a blob as any other (`p2p.blobs.merkle`): whoever voted for the block has it, and whoever has its root
from a certificate can fetch and check it, and then compute what the block should have come to.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from federated.manifest import MAX_STALENESS
from federated.rounds.committee import Membership
from federated.rounds.events import Input, Inputs
from federated.rounds.messages import HASH_SIZE, MAX_COUNT, MAX_EXAMPLES, MessageError
from p2p.blobs.merkle import blob_root

_ENTRY = struct.Struct(f">{HASH_SIZE}sHQQB")


def listed_size(participants: int) -> int:
    """The bytes of the list of so many updates."""
    return participants * _ENTRY.size


def pack_inputs(inputs: Inputs, membership: Membership) -> bytes:
    """The list; all of them are by members."""
    return b"".join(
        _ENTRY.pack(item.root, membership.number(item.peer), item.size, item.examples, item.staleness)
        for item in inputs
    )


def unpack_inputs(data: bytes, membership: Membership) -> Inputs:
    """The updates in a list. Raises `MessageError` for what `pack_inputs` does not make."""
    if len(data) % _ENTRY.size:
        raise MessageError("a list of updates that ends within one")
    found = []
    for root, number, size, examples, staleness in _ENTRY.iter_unpack(data):
        if number >= membership.size or size > MAX_COUNT:
            raise MessageError("a list of updates with one of nobody, or of no size")
        if examples > MAX_EXAMPLES or staleness > MAX_STALENESS:
            raise MessageError("a list of updates with one of too many examples, or too late")
        peer = membership.members[number]
        found.append(Input(peer=peer, root=root, size=size, examples=examples, staleness=staleness))
    if any(one.root >= other.root for one, other in pairwise(found)):
        raise MessageError("a list of updates that is not in the order of their roots")
    return tuple(found)


def inputs_root(inputs: Inputs, membership: Membership) -> bytes:
    """What a block names."""
    return blob_root(pack_inputs(inputs, membership))
