"""The roles of adversaries, by name. What a role leaves None is as with everybody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from federated.equivocation import TwoFaced
from p2p.errors import InvalidInput
from sim.adversaries import dht, gossip, training, voting
from sim.adversaries.poisoning import ATTACKS, Attack
from sim.adversaries.training import Corrupt

if TYPE_CHECKING:
    from pydantic import JsonValue

    from p2p.gossipsub.router import Router
    from p2p.kad.responder import Respond
    from p2p.peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a node does differently: its router, its replies in the DHT, the updates that it hands in."""

    description: str
    router: type[Router] | None = None
    answer: Respond | None = None  # instead of p2p.kad.responder.answer
    corrupt: Corrupt | None = None  # (the round's model, what training came to) → what is handed in
    attack: Attack | None = None  # what it hands in, in league with all others that have one
    conspires: bool = (
        False  # certifies a poisoned model with its like, where they are a quorum of a committee
    )


HONEST = Role(description="keeps all rules")

POISONER = "poisoner"

ROLES: dict[str, Role] = {
    "dropper": Role(
        description="joins meshes and passes on nobody's messages but its own", router=gossip.Dropper
    ),
    "censor": Role(
        description="drops the messages of one origin: the node `victim`, or else the first that it hears of",
        router=gossip.Censor,
    ),
    "eclipser": Role(
        description="grafts everybody, is in every mesh that takes it, and passes on nothing",
        router=gossip.Eclipser,
    ),
    "degrader": Role(
        description="grafts everybody, and passes on every other message", router=gossip.Degrader
    ),
    "covert": Role(
        description="grafts everybody, is honest for `turns_at` seconds (120), then passes on nothing",
        router=gossip.Covert,
    ),
    "ihave-spammer": Role(
        description="advertises messages that do not exist, with every heartbeat", router=gossip.IHaveSpammer
    ),
    "graft-flooder": Role(
        description="grafts everybody with every heartbeat, and again whenever it is pruned",
        router=gossip.GraftFlooder,
    ),
    "replayer": Role(
        description="sends the first messages that it got again, with every heartbeat", router=gossip.Replayer
    ),
    "forger": Role(
        description="sends messages in the names of others, with signatures that are none",
        router=gossip.Forger,
    ),
    "dht-silent": Role(description="takes requests of the DHT and never answers", answer=dht.answer_nothing),
    "dht-liar": Role(
        description="names only peers that do not exist, close to whatever is asked for",
        answer=dht.answer_with_nobody,
    ),
    "dht-poisoner": Role(
        description="answers with a wrong value for whatever key is asked for", answer=dht.answer_with_poison
    ),
    "sign-flip": Role(description="hands in the opposite of what it has learnt", corrupt=training.flip_signs),
    "gaussian": Role(
        description="hands in noise ten times as large as an honest update", corrupt=training.make_noise
    ),
    POISONER: Role(
        description="knows what all learn; its `attack`: sign (unless told), gauss, alie, ipm or label-flip",
        attack=ATTACKS["sign"],
    ),
    "free-rider": Role(
        description="does not learn: hands in the model that it got", corrupt=training.ride_free
    ),
    "two-faced": Role(
        description="votes twice: half of its neighbours get one vote, the others one that excludes it",
        router=TwoFaced,
    ),
    "false-leader": Role(
        description="when it leads, half of its neighbours get the proposal of a model that nobody made",
        router=voting.FalseLeader,
    ),
    "abstainer": Role(
        description="trains, and never votes, leads or passes a proof on", router=voting.Abstainer
    ),
    "conspirator": Role(
        description="certifies a poisoned model with its like, once they are a quorum of a drawn committee",
        conspires=True,
    ),
    "nan": Role(description="hands in a model of values that are no numbers", corrupt=training.make_nan),
}


def role(name: str, settings: Mapping[str, JsonValue] | None = None, peers: Sequence[PeerId] = ()) -> Role:
    """The role of that name, with its `settings`; `peers` are the nodes' ids, by number.

    Raises `InvalidInput` for a role or a setting that does not exist.
    """
    found = ROLES.get(name)
    if found is None:
        raise InvalidInput(f"there is no role {name!r}; there are: {', '.join(sorted(ROLES))}")
    for setting, value in (settings or {}).items():
        match name, setting:
            case "censor", "victim":
                found = replace(found, router=gossip.censor_of(_victim(value, peers)))
            case "covert", "turns_at":
                if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                    raise InvalidInput(f"`turns_at` is in seconds from the start, not {value!r}")
                found = replace(found, router=gossip.covert_until(value))
            case "poisoner", "attack":
                if not isinstance(value, str) or value not in ATTACKS:
                    raise InvalidInput(f"`attack` is one of {', '.join(ATTACKS)}, not {value!r}")
                found = replace(found, attack=ATTACKS[value])
            case _:
                raise InvalidInput(f"the role {name!r} has no setting {setting!r}")
    return found


def _victim(value: JsonValue, peers: Sequence[PeerId]) -> PeerId:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(peers):
        raise InvalidInput(f"`victim` is the number of a node from 0 to {len(peers) - 1}, not {value!r}")
    return peers[value]
