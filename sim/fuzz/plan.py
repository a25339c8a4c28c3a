"""A plan for a seed: a network, some work, and what goes wrong with it, all drawn.

    │ nodes come │ work, under faults │ faults are over: it heals │ work, nothing wrong │ settle │
    0            BEGIN                end of the faults           + HEALING             + CALM

Swarm testing (Groce et al. 2012, "Swarm Testing"): each seed draws its own subset of the kinds of faults, so
that one which hides another is often absent. First safety, under faults; then liveness, after all have ended.
Whatever is drawn ends up in the scenario: it says by itself what happens, and needs no seed to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sim.fuzz.faults import FAULTS, LONGEST, draw_churn, prolong
from sim.identity import rng_of
from sim.scenario.library import with_changes
from sim.scenario.model import Scenario

if TYPE_CHECKING:
    from random import Random

BEGIN = 4.0  # seconds: until then the nodes find each other
FAULTY = 10.0  # seconds in which faults begin; each ends at most 10 s later
HEALING = 12.0  # seconds: a few dials and heartbeats more than what is taken as healed
UNNOTICED = 40.0  # seconds more after what only keepalives find out, or after which peers redial slowly
CALM = 5.0  # seconds of work at the end while nothing is wrong
SETTLE = 10.0  # seconds at least without work
LIKELY = 0.35  # probability of each kind of fault to be in a seed's subset
MOST_OF_A_KIND = 3

PEERS = 20
MOST_FULL = 30  # peers of a full mesh
RUNGS = (16, 3, 1)  # how often "cores", "light" and "full": of 20 peers they take about 0.5, 2 and 4 s
SIZES = (1, 200, 200, 2000, 100_000)  # bytes of a message
SIZES_OF_STREAMS = (200, 2000, 100_000, 300_000)  # on the rungs that have streams, whose windows are 256 KiB
LARGE = 50_000  # bytes; of larger ones so many are published a second in all
SLOWEST = 1.0  # Mbit/s
SLOWEST_OF_LARGE = 20.0  # Mbit/s; the hub of a star passes 0.4 Mbit/s on to each of 20
STAR = 0.95  # delivered of what is published in calm: the hub's mesh cannot take all, and gossip may miss
DHT_SECONDS = 40.0  # of a look-up and a placement: each request has 10 s, and most run side by side


def draw_plan(seed: int, base: Scenario | None = None, *, peers: int | None = None) -> Scenario:
    """The plan of this seed: the same one every time.

    With a `base` its topology, work and checks stay, and its faults; without one they are drawn too, for
    `peers` nodes (20; at least 3). Raises `InvalidInput` when the base makes no sense with so many.
    """
    rng = rng_of(seed, "fuzz", "plan")
    if base is None:
        base = _draw_work(rng, peers or PEERS)
    elif peers is not None:
        base = with_changes(base, peers=peers)
    starts = [load.start for load in base.gossip] + [load.start for load in base.dht]
    begin = min([BEGIN, *starts, *(load.start for load in base.task)])
    drawn = _draw_faults(rng, base, begin)
    lasting = rng_of(seed, "fuzz", "lasting")
    for fault in drawn["faults"]:
        prolong(lasting, fault)
    value = base.model_dump()
    value["network"] |= _draw_network(rng, large=any(load.size > LARGE for load in base.gossip))
    value["churn"] = [*value["churn"], *drawn.pop("churn")]
    value["faults"] = [*value["faults"], *drawn.pop("faults")]
    over = max([begin, *_ends(value["faults"], "at"), *_ends(value["churn"], "start")])
    over += HEALING + (UNNOTICED if any(map(_costs_connections, value["faults"])) else 0.0)
    for load in (*value["gossip"], *value["dht"]):  # goes on until all is well, and a while longer
        load["seconds"] = round(max(load["seconds"], over + CALM - load["start"]), 3)
    value["settle"] = max(base.settle, SETTLE)
    value["name"] = f"{base.name}-seed-{seed}"[:64]
    value["description"] = _described(seed, value)
    return Scenario.model_validate(value)


def _costs_connections(fault: dict[str, Any]) -> bool:
    """Whether peers find out by their keepalives, and may be slow to dial again."""
    return bool(fault.get("silently", False) or fault.get("seconds", 0.0) > LONGEST)


def _ends(entries: list[dict[str, Any]], begin: str) -> list[float]:
    return [entry[begin] + entry.get("seconds", 0.0) for entry in entries]


def _draw_work(rng: Random, peers: int) -> Scenario:
    """A network of `peers` with something to do."""
    kind = rng.choice(["random", "random", "join", "clusters", "ring", "star", "full"])
    kind = "random" if kind == "full" and peers > MOST_FULL else kind
    rung = rng.choices(["cores", "light", "full"], RUNGS)[0]
    sizes = SIZES if rung == "cores" else SIZES_OF_STREAMS
    value: dict[str, Any] = {
        "name": "fuzz",
        "settle": SETTLE,
        "rung": rung,
        "peers": peers,
        "topology": {
            "kind": kind,
            "degree": rng.randint(3, 8),
            "clusters": min(peers, rng.randint(2, 4)),
            "bootstrap": min(peers, rng.randint(1, 3)),
            "over": _between(rng, 0.0, 3.0),
        },
        "gossip": [_gossip(rng, kind, sizes)] if rng.random() < 0.8 else [],
        "dht": [_dht(rng)] if rng.random() < 0.6 else [],
        "task": [_task(rng, peers)] if rng.random() < 0.15 else [],
        "checks": {"delivery": STAR if kind == "star" else 1.0, "dht_seconds": DHT_SECONDS},
    }
    if not value["gossip"] and not value["dht"]:
        value["gossip"] = [_gossip(rng, kind, sizes)]
    return Scenario.model_validate(value)


def _gossip(rng: Random, topology: str, sizes: Sequence[int]) -> dict[str, Any]:
    size = rng.choice(sizes)
    return {
        "rate": LARGE / size if size > LARGE else _between(rng, 0.5, 5.0),
        "size": size,
        "publishers": rng.choice([0.1, 1.0]),
        # who does not listen passes nothing on: with fewer connections some would never be reached
        "subscribers": rng.choice([0.3, 1.0]) if topology == "full" else 1.0,
        "start": BEGIN,
    }


def _dht(rng: Random) -> dict[str, Any]:
    puts = _between(rng, 0.1, 1.0)
    return {"puts": puts, "gets": 2 * puts, "finds": _between(rng, 0.0, 1.0), "start": BEGIN}


def _task(rng: Random, peers: int) -> dict[str, Any]:
    return {
        "members": min(peers, rng.randint(3, 6)),
        "rounds": rng.randint(1, 3),
        "train_seconds": 1.0,
        "start": BEGIN,
    }


def _draw_network(rng: Random, *, large: bool) -> dict[str, Any]:
    """Every property of the network, each often neutral; without any jitter and with a quantum all ties."""
    low = _between(rng, 0.0, 30.0)  # ms
    latency: dict[str, Any] = {"kind": rng.choice(["constant", "uniform", "lognormal"]), "ms": low}
    latency["max_ms"] = _between(rng, low, 2 * rng.uniform(30.0, 100.0) + low)
    ties = rng.random() < 0.3
    slowest = SLOWEST_OF_LARGE if large else SLOWEST
    if ties:
        latency["kind"] = "constant"
    return {
        "latency": latency,
        "jitter": 0.0 if ties else rng.choice([0.0, 0.1, _between(rng, 0.0, 2.0)]),
        "quantum_ms": rng.choice([1.0, 10.0, 50.0]) if ties else 0.0,
        "loss": rng.choice([0.0, 0.0, _between(rng, 0.0, 0.05)]),
        "link_mbit": rng.choice([0.0, 0.0, _between(rng, slowest, 100.0)]),
        "up_mbit": rng.choice([0.0, 0.0, _between(rng, max(5.0, slowest), 100.0)]),
        "down_mbit": rng.choice([0.0, 0.0, _between(rng, max(5.0, slowest), 100.0)]),
        "message_us": rng.choice([0.0, 0.0, _between(rng, 1.0, 500.0)]),
        "clock_skew_ms": rng.choice([0.0, _between(rng, 0.0, 500.0)]),
    }


def _draw_faults(rng: Random, base: Scenario, begin: float) -> dict[str, list[dict[str, Any]]]:
    """This seed's kinds of faults, at least one, and a few of each.

    Who joins through bootstrap nodes needs one that has not crashed: others do not dial it again as long as
    they have peers enough, so it is of another network from then on, with those that came back after it.
    """
    kinds: list[str] = [kind for kind in (*FAULTS, "churn") if rng.random() < LIKELY]
    kinds = kinds or [rng.choice([*FAULTS])]
    first = base.topology.bootstrap if base.topology.kind == "join" else 0
    if first:
        kinds = [kind for kind in kinds if kind != "churn"] or ["crash"]
    drawn: dict[str, list[dict[str, Any]]] = {"faults": [], "churn": []}
    if "churn" in kinds:
        drawn["churn"].append(draw_churn(rng, begin, FAULTY))
    for kind in kinds:
        if kind in FAULTS:
            draw: Callable[[Random, int], dict[str, Any]] = FAULTS[kind]
            for _ in range(rng.randint(1, MOST_OF_A_KIND)):
                at = _between(rng, begin, begin + FAULTY)
                fault = {"kind": kind, "at": at, **draw(rng, base.peers)}
                if kind == "crash" and first:
                    after = [node for node in fault["who"]["nodes"] if node >= first]
                    fault["who"] = {"nodes": after or [base.peers - 1]}
                drawn["faults"].append(fault)
    drawn["faults"].sort(key=lambda fault: fault["at"])
    return drawn


def _between(rng: Random, low: float, high: float) -> float:
    return round(rng.uniform(low, high), 3)


def _described(seed: int, value: dict[str, Any]) -> str:
    """What was drawn, in a line."""
    kinds: dict[str, int] = {}
    for fault in value["faults"]:
        kinds[fault["kind"]] = kinds.get(fault["kind"], 0) + 1
    faults = [f"{count} {kind}" for kind, count in kinds.items()] + ["churn"] * bool(value["churn"])
    network = value["network"]
    settings = [f"{name} {network[name]:g}" for name in network if isinstance(network[name], float)]
    return (
        f"Drawn for seed {seed}: {', '.join(faults)}; latency {network['latency']['kind']}"
        f" from {network['latency']['ms']:g} ms, {', '.join(settings)}."
    )
