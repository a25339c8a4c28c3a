"""Every error of the training layer, by what there is to do about it.

`ManifestError`, `PluginError`, `DataError`, `InvitationError`: a person can put it right, the message is one
line that says how. `CodecError`: the peer sent bytes that are no update of this task, refuse them under
`rule`. `JoinRefused`: this peer cannot become a member; the message is one line that says why.
`AggregationError`: there is nothing to average, skip the round. `StorageError`: the disk failed or
lied, do not vote until it is repaired.
"""


class FederatedError(Exception):
    """Root of every error that the training layer raises."""


class ManifestError(FederatedError, ValueError):
    """A task manifest that cannot be read or breaks a rule; the message names the field."""


class InvitationError(FederatedError, ValueError):
    """A line that is no invitation, or not a whole one; the message says what to do."""


class JoinRefused(FederatedError):
    """The task does not take this peer in, by a rule of `federated.rounds.admission`, or it is over."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


class PluginError(FederatedError):
    """A plugin that is missing, not enabled, broken, or given settings that it does not take."""


class DataError(FederatedError):
    """The data of this peer is missing or not what the task needs."""


class CodecError(FederatedError, ValueError):
    """Bytes that are no tensors of the expected schema; `rule` is the rule they break."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


class AggregationError(FederatedError):
    """The updates at hand do not make a model."""


class TrainingStopped(FederatedError):
    """The trainer was asked to stop before it was done; nothing of its work is used."""


class StorageError(FederatedError):
    """A journal or checkpoint cannot be read or written."""
