"""From updates to a block: what was aggregated in one round, and whether a proposal comes to the same.

Screening is a function of the set alone and is done to a fixpoint, so a set that a correct leader
proposes has nothing more to refuse, and `draft` of the proposed inputs must equal the proposed block.
"""

from __future__ import annotations

from federated.rounds.actions import Aggregate
from federated.rounds.committee import Membership, set_of
from federated.rounds.events import Aggregated, AggregateFailed, Inputs, Screened
from federated.rounds.inputs import inputs_root, pack_inputs
from federated.rounds.messages import Block, Model

MAX_AGGREGATES = 16  # sets of updates aggregated in a round; after that we only trust a quorum


class Assembly:
    """The aggregates of one round; fewer than `minimum` updates leave the model as it is.

    `parent` is the hash of the block before. `changes` goes up with what is learned.
    """

    def __init__(
        self, *, membership: Membership, parent: bytes, round_number: int, base: Model, minimum: int
    ) -> None:
        self.changes = 0
        self._membership = membership
        self._parent = parent
        self._round = round_number
        self._base = base
        self._minimum = minimum
        self._models: dict[Inputs, Model | None] = {}  # None: they make no model
        self._screened: dict[Inputs, tuple[tuple[bytes, str], ...]] = {}
        self._asked: dict[Inputs, bool] = {}

    def skip(self) -> Block:
        """The block that leaves the model as it is."""
        return self._draft((), self._base)

    def ask(self, inputs: Inputs) -> list[Aggregate]:
        """Asks for the aggregate of `inputs`, less what screening refused, unless it was asked for."""
        inputs = self._reduce(inputs)
        if inputs in self._asked or len(inputs) < self._minimum or len(self._asked) >= MAX_AGGREGATES:
            return []
        self._asked[inputs] = True
        return [Aggregate(round=self._round, inputs=inputs, listed=pack_inputs(inputs, self._membership))]

    def handle(self, event: Aggregated | Screened | AggregateFailed) -> None:
        """What came of `ask`; what was never asked for is ignored."""
        if event.inputs not in self._asked:
            return
        self.changes += 1
        match event:
            case Aggregated():
                self._models[event.inputs] = event.model
            case Screened(inputs=inputs, refused=refused) if any(
                item.root in dict(refused) for item in inputs
            ):
                self._screened[inputs] = refused
            case _:
                self._models[event.inputs] = None

    def draft(self, inputs: Inputs) -> Block | None:
        """What `inputs` come to, less what screening refuses; None when that is not known yet."""
        inputs = self._reduce(inputs)
        if len(inputs) < self._minimum:
            return self.skip()
        if inputs not in self._models:
            return None
        model = self._models[inputs]
        return self.skip() if model is None else self._draft(inputs, model)

    def has_model(self, block: Block) -> bool:
        """Whether the block's model was made here."""
        return block.model == self._base or block.model in self._models.values()

    def refused(self, inputs: Inputs) -> list[tuple[int, str]]:
        """The members whose updates screening refused out of `inputs`, and the rules."""
        found = []
        while inputs in self._screened:
            rules = dict(self._screened[inputs])
            numbers = [(self._membership.number(item.peer), rules.get(item.root)) for item in inputs]
            found += [(number, rule) for number, rule in numbers if number is not None and rule is not None]
            inputs = self._without(inputs)
        return found

    def _reduce(self, inputs: Inputs) -> Inputs:
        while inputs in self._screened:
            inputs = self._without(inputs)
        return inputs

    def _without(self, inputs: Inputs) -> Inputs:
        refused = dict(self._screened[inputs])
        return tuple(item for item in inputs if item.root not in refused)

    def _draft(self, inputs: Inputs, model: Model) -> Block:
        numbers = [self._membership.number(item.peer) or 0 for item in inputs]
        return Block(
            task=self._membership.task,
            parent=self._parent,
            round=self._round,
            base=self._base.digest,
            inputs=inputs_root(inputs, self._membership),
            participants=set_of(numbers),
            examples=sum(item.examples for item in inputs),
            model=model,
        )
