"""Who computes a certified block again, and what its list of updates must be: both without any bytes.

Where a committee is drawn, a few members that did not vote in a round are its auditors. Which ones is a
hash of the block itself, so no committee knows them before it has settled what it certifies.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from federated.rounds.committee import draw, set_of
from federated.rounds.events import Recomputed
from federated.rounds.inputs import unpack_inputs
from federated.rounds.messages import MessageError

if TYPE_CHECKING:
    from federated.rounds.actions import Recompute
    from federated.rounds.events import Input, Inputs, Verdict
    from federated.rounds.recent import Decided

AUDITORS = 5  # of a round; with a fifth of the members lying, all of them do in one round of 3000

PARALLEL = 8  # updates of a block on their way at a time
FAILED = "plugin"  # the rule that a block breaks of whose updates the plugins make nothing
WRONG = "digest"  # the rule that a block breaks whose model is another one

_AUDITOR = b"atcp/auditor/1\n"


def auditors(decided: Decided) -> int:
    """The set of the members that compute the block again: of those that did not vote, the lowest hashes."""
    block, membership = decided.certificate.block, decided.membership
    seed = _AUDITOR + membership.task + struct.pack(">Q", block.round) + block.hash
    return draw(seed, membership, membership.active & ~decided.voters, AUDITORS)


def outcome(action: Recompute, verdict: Verdict, rule: str | None = None) -> Recomputed:
    """What `action` came to."""
    return Recomputed(round=action.round, block=action.certificate.block.hash, verdict=verdict, rule=rule)


def read_list(listed: bytes, action: Recompute) -> Inputs | str:
    """The updates in the bytes of a block's list, or the rule that it breaks."""
    try:
        inputs = unpack_inputs(listed, action.membership)
    except MessageError:
        return "list"
    return list_fault(inputs, action) or inputs


def list_fault(inputs: Inputs, action: Recompute) -> str | None:
    """The rule that the list of a block's updates breaks; None when only the updates are left to check."""
    block, membership = action.certificate.block, action.membership
    numbers = [membership.number(item.peer) or 0 for item in inputs]
    owners = dict.fromkeys(numbers)
    if len(owners) < len(numbers) or set_of(owners) != block.participants:
        return "participants"
    if block.participants & ~membership.active:
        return "member"
    if sum(item.examples for item in inputs) != block.examples:
        return "examples"
    if len(inputs) < action.minimum:
        return "minimum"
    if any(item.size > action.max_update for item in inputs):
        return "size"
    pairs = zip(numbers, inputs, strict=True)
    return "staleness" if any(_is_too_late(number, item, action) for number, item in pairs) else None


def _is_too_late(number: int, item: Input, action: Recompute) -> bool:
    """Whether the update builds on a model that it may not, or its owner took part in a round since."""
    if item.staleness >= len(action.bases):
        return True
    return bool(action.bases[item.staleness].participants >> number & 1)
