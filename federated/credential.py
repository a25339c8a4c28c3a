"""What a peer shows to be let into a task, and why it was not, in a sentence."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from federated.errors import JoinRefused, TrainingStopped
from federated.invitation import Ticket
from federated.manifest import ByWork, TaskManifest
from federated.rounds.admission import accept_invitation, search_work
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from federated.compute import Compute, ShouldStop

SLICE = 4096  # attempts of work, of about 1 µs each, between two questions whether to stop

REASONS = {
    "closed": "the task admits nobody",
    "credential": "the task does not take this kind of invitation",
    "key": "a member needs an Ed25519 key; start a peer with a fresh data folder",
    "issuer": "whoever made the invitation may not invite to this task; ask one of its issuers",
    "signature": "the invitation is forged or for another task; ask for a new one",
    "expired": "the invitation's last round is over; ask for a new one",
    "used": "the invitation has let somebody in already; ask for a new one",
    "member": "this peer left the task or was ejected; start one with a fresh data folder",
    "full": "the task has as many members as it takes",
    "finished": "the task is over",
    "trusted": "the block that you trust is none of this task",
}


def refusal(rule: str) -> JoinRefused:
    """The error of a peer that a task does not take in by `rule`."""
    return JoinRefused(rule, REASONS.get(rule, rule))


async def find_credential(
    manifest: TaskManifest, peer: PeerId, ticket: Ticket | None, compute: Compute
) -> bytes:
    """What lets `peer` into the task: its `ticket`, or work, which may take an hour.

    Raises `JoinRefused` when the task takes nobody in, or wants an invitation and there is none.
    """
    admission = manifest.admission
    if isinstance(admission, ByWork):
        return await compute.run(partial(_work, manifest, peer, admission.bits))
    if not manifest.is_open:
        raise refusal("closed")
    if ticket is None:
        raise JoinRefused("credential", "the task wants an invitation; ask one of its issuers for one")
    if ticket.invitation.task != manifest.task_id:
        raise refusal("signature")
    return accept_invitation(ticket, peer)


def _work(manifest: TaskManifest, peer: PeerId, bits: int, should_stop: ShouldStop) -> bytes:
    for first in count(0, SLICE):
        found = search_work(manifest.task_id, peer, bits, first, SLICE)
        if found is not None:
            return found
        if should_stop():
            break
    raise TrainingStopped("nobody waits for the work any more")
