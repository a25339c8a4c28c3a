"""A scenario: who talks over what network, what goes wrong, and what must hold. Written in TOML or Python.

Times are virtual seconds from the start unless a name says otherwise. Whatever is drawn at random
(whom a share means, when somebody leaves) comes from the run's seed.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from federated.manifest import MAX_COMMITTEE, MAX_MEMBERS, MIN_COMMITTEE
from sim.rung import RungName
from sim.scenario.consistency import check_latency, check_nat, check_scenario, check_selection

MAX_PEERS = 20_000
MAX_SECONDS = 30 * 86_400.0
MAX_ENTRIES = 1000  # faults, loads, …: of one kind in one scenario

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
_Positive = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Node = Annotated[int, Field(ge=0, lt=MAX_PEERS)]


class Model(BaseModel):
    """What all parts of a scenario share: unknown names are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# The network


class Latency(Model):
    """One way, between two nodes; drawn once for each pair, the same in both directions.

    "constant": `ms`. "uniform": from `ms` to `max_ms`. "lognormal": median `ms`, `sigma`. "matrix":
    `regions` × `regions` of ms, nodes dealt out in turn. "geo": a preset of sim/network/geography.py.
    """

    kind: Literal["constant", "uniform", "lognormal", "matrix", "geo"] = "lognormal"
    ms: Annotated[float, Field(ge=0, le=60_000)] = 50.0
    max_ms: Annotated[float, Field(ge=0, le=60_000)] = 100.0
    sigma: Annotated[float, Field(ge=0, le=3)] = 0.5
    matrix: tuple[tuple[float, ...], ...] = ()
    preset: str = "world"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_latency(self)
        return self


class Nat(Model):
    """Share of the nodes behind a NAT of this kind: nobody can dial them, unless they dialed him ("open")."""

    kind: Literal["full-cone", "restricted", "symmetric"] = "restricted"
    share: _Share


class NetworkSettings(Model):
    """How links and nodes behave when nothing is wrong. Bandwidth 0 is unlimited."""

    latency: Latency = Latency()
    jitter: Annotated[float, Field(ge=0, le=10)] = 0.1  # share of the latency, drawn for each message
    loss: Annotated[float, Field(ge=0, le=0.9)] = 0.0  # probability for each packet, each time it is sent
    link_mbit: Annotated[float, Field(ge=0)] = 0.0  # of each connection, each way
    up_mbit: Annotated[float, Field(ge=0)] = 0.0  # of each node
    down_mbit: Annotated[float, Field(ge=0)] = 0.0
    quantum_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0  # arrivals at multiples of it: ties
    clock_skew_ms: Annotated[float, Field(ge=0)] = 0.0  # each node's wall clock is off by up to this
    message_us: Annotated[float, Field(ge=0)] = 0.0  # processor time of a node for each message it gets
    nat: tuple[Nat, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_nat(self)
        return self


class Topology(Model):
    """Who dials whom. "join" dials a few bootstrap nodes and lets discovery find the rest.

    "random": `degree` connections of a node on average, connected. The others as their names say.
    """

    kind: Literal["random", "ring", "line", "star", "full", "clusters", "join"] = "random"
    degree: Annotated[int, Field(ge=1, le=1000)] = 8
    clusters: Annotated[int, Field(ge=2, le=1000)] = 4  # of "clusters", joined by a few links
    bootstrap: Annotated[int, Field(ge=1, le=100)] = 3  # nodes that "join" begins at
    over: _Seconds = 1.0  # the nodes come within this time


# Work


class GossipLoad(Model):
    """Messages on one topic."""

    topic: str = "sim"
    rate: Annotated[float, Field(gt=0, le=10_000)] = 10.0  # messages a second, of the whole network
    size: Annotated[int, Field(ge=1, le=1 << 20)] = 200  # bytes
    publishers: _Share = 1.0
    subscribers: _Share = 1.0
    rate_known: bool = False  # the nodes are told the rate, and judge their mesh peers by it
    start: _Seconds = 5.0
    seconds: _Positive = 10.0


class DhtLoad(Model):
    """Puts of fresh values, each got again by others some time later, and look-ups of peers."""

    puts: Annotated[float, Field(ge=0, le=1000)] = 1.0  # a second, of the whole network
    gets: Annotated[float, Field(ge=0, le=1000)] = 2.0  # a second, of values whose put has succeeded
    finds: Annotated[float, Field(ge=0, le=1000)] = 1.0  # a second
    size: Annotated[int, Field(ge=1, le=8192)] = 100  # bytes of a value
    start: _Seconds = 5.0
    seconds: _Positive = 10.0


class TaskLoad(Model):
    """A training task of some of the nodes."""

    name: _Name = "digits"
    members: Annotated[int, Field(ge=0, le=MAX_MEMBERS)] = 10  # nodes; 0: as many as a task may have
    committee: Annotated[int, Field(ge=MIN_COMMITTEE, le=MAX_COMMITTEE)] = (
        MAX_COMMITTEE  # who votes in a round
    )
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 5
    preprocessor: str = "digits"
    trainer: str = "numpy-mlp"
    aggregator: str = "weighted-mean"
    validator: str = "update-check"
    settings: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)  # of each plugin, by its role
    train_seconds: _Positive = 2.0  # modelled time of one local training, the median over the nodes
    train_deadline: _Positive = 20.0
    phase_deadline: _Positive = 5.0
    kill_seconds: _Seconds = 0.0  # kill -9 of a random member in every round, for so long on average; 0: none
    start: _Seconds = 5.0


class Churn(Model):
    """Nodes come and go: sessions and absences drawn from a distribution, for a share of the nodes."""

    kind: Literal["exponential", "lognormal", "weibull"] = "weibull"
    session: _Positive = 60.0  # seconds, the median
    absence: _Positive = 10.0  # seconds, the median
    shape: Annotated[float, Field(gt=0, le=10)] = 0.6  # of Weibull, or sigma
    share: _Share = 0.2
    keep_disk: bool = True
    start: _Seconds = 5.0
    seconds: _Positive = 30.0


# What goes wrong


class Selection(Model):
    """Which nodes: those in `nodes`, or a random `share` of all, or a random `count`. One of the three."""

    nodes: tuple[_Node, ...] = ()
    share: _Share = 0.0
    count: Annotated[int, Field(ge=0, le=MAX_PEERS)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_selection(self)
        return self


class Fault(Model):
    """What every fault has: when it begins. It ends `seconds` later; 0: not before the run does."""

    at: _Seconds
    seconds: _Seconds = 0.0


class Crash(Fault):
    """kill -9 of some nodes, which start again after `seconds` (never when 0)."""

    kind: Literal["crash"] = "crash"
    who: Selection
    keep_disk: bool = True
    silently: bool = False  # as when the power fails: the others are not told


class Partition(Fault):
    """`who` and the others do not reach each other; `one_way`: what `who` sends is held, not what it gets."""

    kind: Literal["partition"] = "partition"
    who: Selection
    one_way: bool = False


class Hold(Fault):
    """Everything from and to `who` waits until the end, then arrives, in order."""

    kind: Literal["hold"] = "hold"
    who: Selection


class Reset(Fault):
    """A share of the connections of `who` breaks at once; `seconds` means nothing here."""

    kind: Literal["reset"] = "reset"
    who: Selection
    connections: _Share = 1.0


class Weather(Fault):
    """The links of `who` get worse for a while."""

    kind: Literal["weather"] = "weather"
    who: Selection
    loss: Annotated[float, Field(ge=0, le=0.9)] = 0.0  # instead of the network's, when it is higher
    latency: Annotated[float, Field(ge=1, le=1000)] = 1.0  # factor
    jitter: Annotated[float, Field(ge=0, le=10)] = 0.0  # instead of the network's, when it is higher
    mbit: Annotated[float, Field(ge=0)] = 0.0  # instead of the links', when it is lower; 0: unchanged


class SlowReader(Fault):
    """`who` takes nothing off its connections: what others send stays in flight, then with them."""

    kind: Literal["slow-reader"] = "slow-reader"
    who: Selection


class SlowProcessor(Fault):
    """Computing and handling of messages take `factor` times as long."""

    kind: Literal["slow-processor"] = "slow-processor"
    who: Selection
    factor: Annotated[float, Field(ge=1, le=1000)] = 10.0


class DiskFull(Fault):
    """Every write fails with ENOSPC."""

    kind: Literal["disk-full"] = "disk-full"
    who: Selection


class DiskError(Fault):
    """A share of the reads and writes fails with EIO."""

    kind: Literal["disk-error"] = "disk-error"
    who: Selection
    share: _Share = 1.0


class ClockJump(Fault):
    """The wall clocks of `who` jump by `by_ms`, and back after `seconds` (never when 0)."""

    kind: Literal["clock-jump"] = "clock-jump"
    who: Selection
    by_ms: Annotated[float, Field(ge=-1e9, le=1e9)]


AnyFault = Annotated[
    Crash
    | Partition
    | Hold
    | Reset
    | Weather
    | SlowReader
    | SlowProcessor
    | DiskFull
    | DiskError
    | ClockJump,
    Field(discriminator="kind"),
]


class Adversary(Model):
    """Nodes that run our own machines with a rule changed; the roles are in sim/adversaries.py.

    With `dials` they have no place in the topology: each dials those honest nodes instead, drawn for itself.
    """

    role: str
    who: Selection
    dials: Selection | Literal["publishers"] | None = None
    addresses: Annotated[int, Field(ge=0, le=250)] = 0  # public IPs that they share; 0: one each, and private
    settings: dict[str, JsonValue] = Field(default_factory=dict)


# What must hold


class Checks(Model):
    """What is judged beside the invariants, which always are; None is not judged, and a share of 0 holds.

    Deliveries count for nodes that ran, honest, from the publication to the end of the run.
    """

    delivery: _Share | None = 1.0  # of the messages published while nothing was wrong
    delivery_under_faults: _Share | None = None  # of all others
    p99_ms: Annotated[float, Field(gt=0)] | None = None  # of deliveries published while nothing was wrong
    max_ms: Annotated[float, Field(gt=0)] | None = None  # of the slowest of them
    eclipse_seconds: _Seconds | None = None  # longest that most of an honest node's mesh are adversaries
    eclipse_after: _Seconds = 0.0  # when that begins to count: adversaries may be honest until then
    finds: _Share | None = 0.95  # share of look-ups that end well while nothing is wrong
    puts: _Share | None = 0.95
    gets: _Share | None = 0.95  # share of gets that return the value that was put
    dht_seconds: Annotated[float, Field(gt=0)] = 120.0  # every DHT operation ends within, whatever goes wrong
    rounds: bool = True  # every member that runs at the end is through with every round
    certified: _Share | None = None  # share of a task's rounds that end with a certificate, not skipped
    accuracy: _Share | None = None  # of the last model


class Scenario(Model):
    """One whole run. It lasts until `settle` seconds after its last work or fault, and its tasks."""

    name: _Name
    description: str = ""
    rung: RungName = "light"
    peers: Annotated[int, Field(ge=1, le=MAX_PEERS)] = 50
    settle: _Seconds = 15.0  # seconds at the end in which nothing is published and nothing goes wrong
    topology: Topology = Topology()
    network: NetworkSettings = NetworkSettings()
    gossip: Annotated[tuple[GossipLoad, ...], Field(max_length=MAX_ENTRIES)] = ()
    dht: Annotated[tuple[DhtLoad, ...], Field(max_length=MAX_ENTRIES)] = ()
    task: Annotated[tuple[TaskLoad, ...], Field(max_length=MAX_ENTRIES)] = ()
    churn: Annotated[tuple[Churn, ...], Field(max_length=MAX_ENTRIES)] = ()
    faults: Annotated[tuple[AnyFault, ...], Field(max_length=MAX_ENTRIES)] = ()
    adversaries: Annotated[tuple[Adversary, ...], Field(max_length=MAX_ENTRIES)] = ()
    checks: Checks = Checks()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_scenario(self)
        return self
