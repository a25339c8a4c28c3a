"""Whether a model may follow on the one before, by what this member holds out: `policy.max_loss_rise`.

Members hold out different data and may come to different answers, so no answer is anybody else's: a member
that finds a model worse does not vote for it, and a model is certified only if a quorum finds it no worse.
See `federated.rounds.voting` for what becomes of a round whose members do not agree.
"""

from __future__ import annotations

from collections.abc import Callable

from federated.errors import AggregationError, PluginError
from federated.parameters import Parameters


class Worsened(AggregationError):
    """A model whose loss here is too far above that of its base; `after` is None where it is no number."""

    def __init__(self, before: float, after: float | None) -> None:
        risen = "would be no number" if after is None else f"would rise from {before:.3g} to {after:.3g}"
        super().__init__(f"the model stays as it is: its loss on the data held out here {risen}")
        self.before = before
        self.after = after


class LossGuard:
    """Compares the losses of models with that of their base, which is measured once a round.

    `measure` gives the loss of a model on the data held out, None where there is none, or no data. It may
    raise `PluginError`.
    """

    def __init__(self, max_rise: float, measure: Callable[[Parameters], float | None]) -> None:
        self._max_rise = max_rise
        self._measure = measure
        self._known: tuple[Parameters, float | None] | None = None  # of the newest base

    def forget(self) -> None:
        """The data held out may be others from now on."""
        self._known = None

    def check(self, base: Parameters, model: Parameters) -> None:
        """Raises `Worsened` if the loss of `model` is too high, and `PluginError` if it cannot be measured.

        Where the base has no loss there is nothing to hold against the model. A base is never changed in
        place.
        """
        known = self._known
        if known is None or known[0] is not base:
            known = self._known = (base, self._loss_of_base(base))
        before = known[1]
        if before is None:
            return
        after = self._measure(model)
        if after is None or after > before + self._max_rise * abs(before):
            raise Worsened(before, after)

    def _loss_of_base(self, base: Parameters) -> float | None:
        try:
            return self._measure(base)
        except PluginError:  # it was said when the base was evaluated
            return None
